/**
 * What a tree told about itself, for tests: to wait for, to compare, and to balance.
 *
 * A log is made right after the tree, and has its events from the start on. It goes on until the tree has ended, whatever
 * happens to the scope in which it was made, so that the end can be looked at, too.
 *
 * An event is named by a line: its tag, or its tag and the id of its child, as `"ChildRestarted worker"`. Where that is not
 * enough, a record says what else it must have: `{ _tag: "ChildExited", child: "worker", exit: "Killed" }`.
 *
 * **Guarantees.** A log never changes what it looks at: it only reads (L1). What has happened when a check begins is in the
 * log that it checks (L2). A check that fails says what came instead, in a message that can be read (L3).
 *
 * **Not guaranteed.** A tree keeps its latest 256 events for a late reader, so a log of a tree that told more than that
 * before the log was made begins in the middle. `balanced` says so, where the others cannot know. While there is a log,
 * alarming events are not logged, because somebody reads them.
 *
 * **Example** (A child that comes back)
 *
 * ```ts
 * import { Supervisor } from "@tinkex/supervision"
 * import { EventLog, FaultyChild } from "@tinkex/supervision/testing"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const worker = FaultyChild.make("worker", { crashAfterMessages: 2 })
 *   const log = yield* Effect.scoped(
 *     Effect.gen(function* () {
 *       const tree = yield* Supervisor.start({ children: [worker.spec] })
 *       const log = yield* EventLog.make(tree)
 *       yield* tree.refs.worker.cast.tell("one")
 *       yield* tree.refs.worker.cast.tell("two")
 *       yield* log.awaitEvent("ChildRestarted", "worker")
 *       return log
 *     })
 *   )
 *   yield* log.expectInOrder(["ChildExited worker", "ChildRestarted worker", "SupervisorExited"])
 *   yield* log.balanced
 *   return log.lines.join(", ")
 * })
 *
 * console.log(await Effect.runPromise(program)) // => ChildStarted worker, ChildExited worker, ChildStarted worker, ChildRestarted worker, ChildStopped worker, SupervisorExited supervisor
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Scheduler from "effect/Scheduler"
import * as Stream from "effect/Stream"
import * as ExitReason from "../ExitReason.ts"
import type { DropReason, SupervisionEvent } from "../SupervisionEvent.ts"
import { NeverHappened, TestingError, Unbalanced, Unexpected } from "./TestingError.ts"

/**
 * @category models
 * @since 0.1.0
 */
export type Tag = SupervisionEvent["_tag"]

/**
 * A tag, or a tag and the id of a child.
 *
 * @category models
 * @since 0.1.0
 */
export type Line = Tag | `${Tag} ${string}`

/**
 * What an event must have; what is left out may be anything. `exit` is the kind of end.
 *
 * @category models
 * @since 0.1.0
 */
export interface Criteria {
  readonly _tag?: Tag | undefined
  readonly child?: string | undefined
  /** The path of its supervisor. */
  readonly supervisor?: string | undefined
  readonly generation?: number | undefined
  readonly operation?: string | undefined
  readonly why?: DropReason | undefined
  readonly exit?: ExitReason.ExitReason["_tag"] | undefined
}

/**
 * @category models
 * @since 0.1.0
 */
export type Pattern = Line | Criteria

/**
 * The event of a tag.
 *
 * @category type-level
 * @since 0.1.0
 */
export type EventOf<T extends Tag> = Extract<SupervisionEvent, { readonly _tag: T }>

/**
 * @category options
 * @since 0.1.0
 */
export interface AwaitOptions {
  /** Which such event, counted from the start of the tree. Default 1: the first. */
  readonly times?: number | undefined
  /**
   * When to give up, in real time. Time of a test clock stands still while a test waits, so this only makes a test fail that
   * would hang. Default 2 seconds.
   */
  readonly within?: Duration.Input | undefined
}

/**
 * Events in their order, and what can be said about them. All checks fail with a `TestingError`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Events {
  /** What has been read by now, the oldest first. */
  readonly events: ReadonlyArray<SupervisionEvent>
  /** The same, each as its tag and the id of its child. */
  readonly lines: ReadonlyArray<string>
  /** Only the events that fit one of these. It goes on as the log does. */
  readonly filter: (...patterns: ReadonlyArray<Pattern>) => Events
  /** How many fit. */
  readonly count: (pattern: Pattern) => number
  /** These came in this order; others may lie between them. */
  readonly expectInOrder: (patterns: ReadonlyArray<Pattern>) => Effect.Effect<void, TestingError>
  /** These came in this order, and no others. */
  readonly expectExactly: (patterns: ReadonlyArray<Pattern>) => Effect.Effect<void, TestingError>
  /** None came that fits. */
  readonly expectNone: (pattern: Pattern) => Effect.Effect<void, TestingError>
}

/**
 * The events of one tree.
 *
 * @category models
 * @since 0.1.0
 */
export interface EventLog extends Events {
  /** Whether the tree has ended. */
  readonly ended: boolean
  /** Waits for an event, also one that has come already. Fails with `NeverHappened`. */
  readonly awaitEvent: <T extends Tag>(
    tag: T,
    child?: string,
    options?: AwaitOptions
  ) => Effect.Effect<EventOf<T>, TestingError>
  /** The tree has ended, and every incarnation that started ended exactly once before it. Fails with `Unbalanced`. */
  readonly balanced: Effect.Effect<void, TestingError>
  /** Of every incarnation that was left behind, nothing runs any longer. Fails with `Unbalanced`. */
  readonly noZombies: Effect.Effect<void, TestingError>
}

const historyCapacity = 256

const criteriaOf = (pattern: Pattern): Criteria => {
  if (typeof pattern !== "string") return pattern
  const space = pattern.indexOf(" ")
  // a line begins with a tag, which has no space in it
  const _tag = (space < 0 ? pattern : pattern.slice(0, space)) as Tag
  return space < 0 ? { _tag } : { _tag, child: pattern.slice(space + 1) }
}

const has = (event: SupervisionEvent, field: keyof Criteria, wanted: unknown): boolean => {
  if (wanted === undefined) return true
  if (field === "exit") return "exit" in event && event.exit._tag === wanted
  return field in event && event[field as keyof SupervisionEvent] === wanted // it was found there
}

const fits = (event: SupervisionEvent, pattern: Pattern): boolean => {
  const criteria = criteriaOf(pattern)
  for (const field in criteria) {
    // a field of criteria
    if (!has(event, field as keyof Criteria, criteria[field as keyof Criteria])) return false
  }
  return true
}

const showPattern = (pattern: Pattern): string => {
  const { _tag = "any event", child, ...others } = criteriaOf(pattern)
  const rest = Object.entries(others).filter(([, value]) => value !== undefined)
  const named = child === undefined ? _tag : `${_tag} ${child}`
  return rest.length === 0 ? named : `${named} (${rest.map(([field, value]) => `${field} ${value}`).join(", ")})`
}

const lineOf = (event: SupervisionEvent): string => `${event._tag} ${event.child}`

const showEvent = (event: SupervisionEvent): string => {
  const details: Array<string> = []
  if ("generation" in event) details.push(`generation ${event.generation}`)
  if ("exit" in event) details.push(ExitReason.format(event.exit))
  if ("operation" in event) details.push(event.operation)
  if ("why" in event) details.push(event.why)
  return details.length === 0 ? lineOf(event) : `${lineOf(event)} (${details.join(", ")})`
}

const nameOf = (event: SupervisionEvent & { readonly generation: number }): string =>
  `${event.supervisor}/${event.child}, incarnation ${event.generation},`

/** The longest agreement of what was expected with what came, as lines. */
const differenceOf = (
  patterns: ReadonlyArray<Pattern>,
  events: ReadonlyArray<SupervisionEvent>
): { readonly lines: ReadonlyArray<string>; readonly missing: number; readonly extra: number } => {
  const width = events.length + 1
  const common = Array.from({ length: (patterns.length + 1) * width }, () => 0)
  const at = (row: number, column: number) => common[row * width + column] ?? 0
  for (let row = patterns.length - 1; row >= 0; row--) {
    for (let column = events.length - 1; column >= 0; column--) {
      const [pattern, event] = [patterns[row], events[column]]
      const agree = pattern !== undefined && event !== undefined && fits(event, pattern)
      common[row * width + column] = agree
        ? at(row + 1, column + 1) + 1
        : Math.max(at(row + 1, column), at(row, column + 1))
    }
  }
  const lines: Array<string> = []
  let [row, column, missing, extra] = [0, 0, 0, 0]
  while (row < patterns.length || column < events.length) {
    const [pattern, event] = [patterns[row], events[column]]
    if (pattern !== undefined && event !== undefined && fits(event, pattern)) {
      lines.push(`  ${showEvent(event)}`)
      row++
      column++
    } else if (pattern !== undefined && (event === undefined || at(row + 1, column) >= at(row, column + 1))) {
      lines.push(`- ${showPattern(pattern)}`)
      missing++
      row++
    } else if (event !== undefined) {
      lines.push(`+ ${showEvent(event)}`)
      extra++
      column++
    }
  }
  return { lines, missing, extra }
}

const unexpected = (problem: string, difference: ReadonlyArray<string>) =>
  Effect.fail(new TestingError({ reason: new Unexpected({ problem, difference }) }))

const unbalanced = (problems: ReadonlyArray<string>) =>
  problems.length === 0 ? Effect.void : Effect.fail(new TestingError({ reason: new Unbalanced({ problems }) }))

/** Lets the log read what has happened. */
const readAll = Effect.yieldNow

const viewOf = (read: () => ReadonlyArray<SupervisionEvent>): Events => ({
  get events() {
    return [...read()]
  },
  get lines() {
    return read().map(lineOf)
  },
  filter: (...patterns) => viewOf(() => read().filter((event) => patterns.some((pattern) => fits(event, pattern)))),
  count: (pattern) => read().filter((event) => fits(event, pattern)).length,
  expectInOrder: (patterns) =>
    Effect.andThen(
      readAll,
      Effect.suspend(() => {
        const { lines, missing } = differenceOf(patterns, read())
        if (missing === 0) return Effect.void
        return unexpected(`${missing} of ${patterns.length} expected events did not come in this order`, lines)
      })
    ),
  expectExactly: (patterns) =>
    Effect.andThen(
      readAll,
      Effect.suspend(() => {
        const { extra, lines, missing } = differenceOf(patterns, read())
        if (missing === 0 && extra === 0) return Effect.void
        return unexpected(`${missing} expected events did not come, and ${extra} others did`, lines)
      })
    ),
  expectNone: (pattern) =>
    Effect.andThen(
      readAll,
      Effect.suspend(() => {
        const found = read().filter((event) => fits(event, pattern))
        if (found.length === 0) return Effect.void
        return unexpected(`"${showPattern(pattern)}" came, and nothing like it was expected`, found.map(showEvent))
      })
    )
})

/** Somebody who waits for the n-th event that fits. */
interface Waiting {
  readonly pattern: Pattern
  left: number
  readonly resume: (event: SupervisionEvent | undefined) => void
}

/**
 * Begins a log of a tree, given the ref of its root, or of any supervisor in it for that part. It reads until the tree ends,
 * in a fiber that belongs to no scope and ends with the tree.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (supervisor: { readonly events: Stream.Stream<SupervisionEvent> }): Effect.Effect<EventLog> =>
  Effect.gen(function* () {
    const read: Array<SupervisionEvent> = []
    const waiting = new Set<Waiting>()
    let ended = false
    let isTruncated = false

    const take = (events: ReadonlyArray<SupervisionEvent>) => {
      if (read.length === 0 && events.length >= historyCapacity) isTruncated = true
      read.push(...events)
      for (const who of Array.from(waiting)) {
        for (const event of events) {
          if (!fits(event, who.pattern) || --who.left > 0) continue
          waiting.delete(who)
          who.resume(event)
          break
        }
      }
    }

    yield* Stream.chunks(supervisor.events).pipe(
      Stream.runForEach((events) => Effect.sync(() => take(events))),
      Effect.ensuring(
        Effect.sync(() => {
          ended = true
          for (const { resume } of waiting) resume(undefined)
          waiting.clear()
        })
      ),
      Effect.forkDetach({ startImmediately: true }),
      // around the fork, so that it reads from its first operation on, and whoever is told of an event finds it in the log
      Effect.provideService(Scheduler.PreventSchedulerYield, true)
    )

    const wait = (pattern: Pattern, options: AwaitOptions): Effect.Effect<SupervisionEvent, TestingError> => {
      const { times = 1 } = options
      const within = Duration.fromInputUnsafe(options.within ?? "2 seconds")
      const expected = times === 1 ? showPattern(pattern) : `${showPattern(pattern)}, ${times} times`
      const never = () =>
        new TestingError({ reason: new NeverHappened({ expected, within, seen: read.map(showEvent) }) })
      return Effect.callback<SupervisionEvent, TestingError>((resume) => {
        const past = read.filter((event) => fits(event, pattern))
        const found = past[times - 1]
        if (found !== undefined) return resume(Effect.succeed(found))
        if (ended) return resume(Effect.fail(never()))
        const who: Waiting = {
          pattern,
          left: times - past.length,
          // a turn of its own, so that nothing happens on the stack of the one who reads for everybody
          resume: (event) => {
            clearTimeout(timer)
            resume(Effect.andThen(Effect.yieldNow, event === undefined ? Effect.fail(never()) : Effect.succeed(event)))
          }
        }
        const giveUp = () => {
          waiting.delete(who)
          who.resume(undefined)
        }
        const timer = setTimeout(giveUp, Math.min(Duration.toMillis(within), 2 ** 31 - 1))
        waiting.add(who)
        return Effect.sync(() => {
          clearTimeout(timer)
          waiting.delete(who)
        })
      })
    }

    const balanced = Effect.suspend(() => {
      const problems: Array<string> = []
      if (!ended) problems.push("the tree has not ended: close its scope before")
      if (isTruncated) problems.push("the log begins in the middle: make it before the tree has told 256 events")
      const running = new Map<string, number>()
      for (const event of read) {
        if (event._tag === "EventsMissed") problems.push(`the log was too slow and misses ${event.count} events`)
        if (event._tag !== "ChildStarted" && event._tag !== "ChildExited" && event._tag !== "ChildStopped") continue
        const name = nameOf(event)
        const count = running.get(name) ?? 0
        if (event._tag === "ChildStarted") running.set(name, count + 1)
        else if (count > 0) running.set(name, count - 1)
        else problems.push(`${name} ended without a start, or once too often: ${event._tag}`)
      }
      for (const [name, count] of running) if (count > 0) problems.push(`${name} started and did not end`)
      return unbalanced(problems)
    })

    const noZombies = Effect.suspend(() => {
      const left = new Map<string, number>()
      for (const event of read) {
        if (event._tag !== "Zombie" && event._tag !== "ZombieEnded") continue
        const name = nameOf(event)
        left.set(name, (left.get(name) ?? 0) + (event._tag === "Zombie" ? 1 : -1))
      }
      const names = Array.from(left).filter(([, count]) => count > 0)
      return unbalanced(names.map(([name]) => `${name} was left behind and still runs`))
    })

    const view = viewOf(() => read)
    return {
      ...view,
      get events() {
        return view.events
      },
      get lines() {
        return view.lines
      },
      get ended() {
        return ended
      },
      // what fits the tag is its event
      awaitEvent: <T extends Tag>(tag: T, child?: string, options: AwaitOptions = {}) =>
        wait({ _tag: tag, child }, options) as Effect.Effect<EventOf<T>, TestingError>,
      balanced: Effect.andThen(readAll, balanced),
      noZombies: Effect.andThen(readAll, noZombies)
    }
  })
