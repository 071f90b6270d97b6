// The obvious actor on Effect: a queue, a fiber that takes from it for ever, and a deferred for each answer. It has no
// deadlines, no bounds and no supervision.
import { Deferred, Effect, Queue } from "effect"

type Message =
  | { readonly _tag: "Call"; readonly value: number; readonly reply: Deferred.Deferred<number> }
  | { readonly _tag: "Cast" }
  | { readonly _tag: "Read"; readonly reply: Deferred.Deferred<number> }

export interface EffectActor {
  readonly inbox: Queue.Queue<Message>
}

export const make = Effect.gen(function* () {
  const inbox = yield* Queue.unbounded<Message>()
  let count = 0
  const handle = (message: Message) => {
    switch (message._tag) {
      case "Call":
        return Deferred.succeed(message.reply, message.value)
      case "Cast":
        count++
        return Effect.void
      case "Read":
        return Deferred.succeed(message.reply, count)
    }
  }
  yield* Effect.forkScoped(Effect.forever(Effect.flatMap(Queue.take(inbox), handle), { disableYield: true }), {
    startImmediately: true
  })
  return { inbox } satisfies EffectActor
})

export const call = (actor: EffectActor, value: number) =>
  Effect.flatMap(Deferred.make<number>(), (reply) =>
    Effect.andThen(Queue.offer(actor.inbox, { _tag: "Call", value, reply }), Deferred.await(reply))
  )

export const cast = (actor: EffectActor) => Queue.offer(actor.inbox, { _tag: "Cast" })

export const read = (actor: EffectActor) =>
  Effect.flatMap(Deferred.make<number>(), (reply) =>
    Effect.andThen(Queue.offer(actor.inbox, { _tag: "Read", reply }), Deferred.await(reply))
  )
