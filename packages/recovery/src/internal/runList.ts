import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { RestClient, RunFlag } from "@tinkex/tinker/RestClient"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type { Pace } from "./pace.ts"

/** Runs to a page: the most that the service gives. */
export const pageSize = 100

const readers = 8
const limit = "60 seconds"
const quietAfterRefusal = Duration.seconds(2)
/** So many pages in a row without an answer end a walk. */
const patience = 3

/** One page of the list of runs. Asked for twice where the first time gives nothing; a rate limit is waited out before. */
export const page = (rest: RestClient["Service"], pace: Pace, offset: number) => {
  const once = pace.leave.pipe(
    Effect.andThen(
      rest.listRunFlags({ limit: pageSize, offset, accessScope: "accessible", retries: 0, deadline: limit })
    ),
    Effect.tapError(({ reason }) =>
      reason._tag === "RateLimited" ? pace.hush(reason.retryAfter ?? quietAfterRefusal) : Effect.void
    )
  )
  return Effect.catchIf(
    once,
    (error) => error.isRetryable,
    () => once
  )
}

/**
 * Reads the list from its newest run on, several pages at a time, until `see` says that no more runs are wanted, the list ends,
 * or `most` pages are read. No page is asked for that those under way may make unnecessary. Its pages are no snapshot: a run that moves meanwhile may be missed, and a page that stays without an answer is passed
 * over. Gives the error of the last such page.
 */
export const walk = Effect.fnUntraced(function* (
  rest: RestClient["Service"],
  pace: Pace,
  most: number,
  wanted: number,
  see: (runs: ReadonlyArray<RunFlag>, offset: number) => Effect.Effect<number>
): Effect.fn.Return<{ readonly pages: number; readonly error: TinkerError | undefined }> {
  let pages = 0
  let given = 0
  let over = most === 0
  let missing = wanted
  let underWay = 0
  let stride = pageSize
  let next = 0
  let inARow = 0
  let error: TinkerError | undefined

  const readNext = Effect.suspend(() => {
    const offset = next
    next += stride
    given++
    underWay++
    return page(rest, pace, offset).pipe(
      Effect.matchEffect({
        onSuccess: ({ runs }) => {
          pages++
          inARow = 0
          // a service may give less than it was asked for; an empty page alone is the end
          if (offset === 0 && runs.length > 0 && runs.length < stride) {
            stride = runs.length
            next = stride
          }
          if (runs.length === 0) over = true
          return Effect.map(see(runs, offset), (left) => {
            missing = left
            over ||= left <= 0
          })
        },
        onFailure: (failure) =>
          Effect.sync(() => {
            error = failure
            inARow++
            over ||= inARow >= patience || !failure.isRetryable
          })
      }),
      Effect.ensuring(Effect.sync(() => underWay--))
    )
  })
  const goOn = () => !over && given < most
  const reader = Effect.whileLoop({
    while: () => goOn() && (underWay === 0 || underWay * stride < missing),
    body: () => readNext,
    step: () => {}
  })
  // the first page says how long a page is
  if (goOn()) yield* readNext
  while (goOn())
    yield* Effect.all(
      Array.from({ length: readers }, () => reader),
      { concurrency: "unbounded", discard: true }
    )
  return { pages, error }
})
