/** What those are told who ask for a result. */
import * as Headers from "@tinkex/tinker/wire/Headers"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { noAccess } from "./deaths.ts"
import type { Future, QueueState, Result } from "./futures.ts"
import { json, ok, refused, type Refused, type Reply } from "./reply.ts"
import type { World } from "./world.ts"

const gone = (requestId: string): Refused => refused(410, `The result of request ${requestId} is gone`)

const pauseReasons: Readonly<Record<QueueState, string | undefined>> = {
  active: undefined,
  paused_capacity: "there is no capacity for this request at the moment",
  paused_rate_limit: "too many requests at the moment"
}

/** What a poll can take. */
export interface Wants {
  readonly protobuf: boolean
  /** The size of a large result in place of the result. */
  readonly metadataOnly: boolean
}

/** Ids of samples say where they come from: a session that ended, or an earlier process. */
const isOfLostSampler = (world: World, requestId: string): boolean => {
  const sampler = /^(.+:sample:\d+):\d+$/.exec(requestId)?.[1]
  return sampler !== undefined && !world.samplers.has(sampler)
}

const pending = ({ faults, settings }: World, future: Future): Reply => {
  const { id, queueState } = future
  const turn = future.unanswered++ % 2 === 0 ? "paused_rate_limit" : "active"
  const state = faults.paused?.queueState ?? (queueState === "alternating" ? turn : queueState)
  const reason = pauseReasons[state]
  return json(settings.pendingReply === "408" ? 408 : 200, {
    type: "try_again",
    request_id: id,
    queue_state: state,
    ...(reason === undefined ? {} : { queue_state_reason: reason })
  })
}

const whole = (result: Result, protobuf: boolean): Reply => {
  switch (result._tag) {
    case "Failed":
      return ok({ error: result.error, category: result.category })
    case "Json":
      return ok(result.body)
    case "Output":
      return protobuf ? { status: 200, contentType: Headers.protobuf, body: result.protobuf() } : ok(result.json())
  }
}

const finished = ({ faults, settings }: World, future: Future, result: Result, wants: Wants): Reply => {
  const { samples: _, user: __, ...audit } = future.place
  const reply = whole(result, wants.protobuf)
  const size = Buffer.byteLength(reply.body)
  if (wants.metadataOnly && result._tag === "Output" && size > settings.metadataOnlyAbove) {
    return ok({ status: "complete_metadata", response_payload_size: size }, { audit })
  }
  return { ...reply, audit, finished: true, dropped: faults.loses("retrieve_future", audit) }
}

/** Waits for a result as long as a poll may take. */
export const retrieve = (world: World, requestId: string, user: string, wants: Wants): Effect.Effect<Reply, Refused> =>
  Effect.suspend(() => {
    const future = world.futures.find(requestId, world.now())
    if (future === "unknown" && !isOfLostSampler(world, requestId)) {
      return Effect.fail(refused(404, `Request ${requestId} not found`))
    }
    if (typeof future === "string") return Effect.fail(gone(requestId))
    if (future.place.user !== user) return Effect.fail(noAccess())
    const reply = (result: Result) => Effect.succeed(finished(world, future, result, wants))
    if (future.result !== undefined) return reply(future.result)
    return Deferred.await(future.settled).pipe(
      Effect.timeoutOption(world.settings.longPollMillis),
      Effect.flatMap(() => {
        if (future.expired) return Effect.fail(gone(requestId))
        return future.result === undefined ? Effect.succeed(pending(world, future)) : reply(future.result)
      })
    )
  })
