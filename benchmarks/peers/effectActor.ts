// The obvious actor on Effect: a queue, a fiber that takes from it for ever, and a deferred for each answer. It has no
// deadlines, no bounds and no supervision.
import { Deferred, Effect, type Fiber, Queue } from "effect"

export const name = "Effect queue and fiber"

type Message =
  | { readonly _tag: "Call"; readonly value: number; readonly reply: Deferred.Deferred<number> }
  | { readonly _tag: "Cast" }
  | { readonly _tag: "Read"; readonly reply: Deferred.Deferred<number> }

export interface EffectActor<Message> {
  readonly inbox: Queue.Queue<Message>
  readonly fiber: Fiber.Fiber<never>
}

export const spawn = <Message>(handle: (message: Message) => Effect.Effect<unknown>) =>
  Effect.gen(function* () {
    const inbox = yield* Queue.unbounded<Message>()
    const loop = Effect.forever(Effect.flatMap(Queue.take(inbox), handle), { disableYield: true })
    return { inbox, fiber: yield* Effect.forkScoped(loop, { startImmediately: true }) }
  })

/** A counter. */
export const make = Effect.suspend(() => {
  let count = 0
  return spawn((message: Message) => {
    switch (message._tag) {
      case "Call":
        return Deferred.succeed(message.reply, message.value)
      case "Cast":
        count++
        return Effect.void
      case "Read":
        return Deferred.succeed(message.reply, count)
    }
  })
})

type Counter = EffectActor<Message>

export const call = (actor: Counter, value: number) =>
  Effect.flatMap(Deferred.make<number>(), (reply) =>
    Effect.andThen(Queue.offer(actor.inbox, { _tag: "Call", value, reply }), Deferred.await(reply))
  )

export const cast = (actor: Counter) => Queue.offer(actor.inbox, { _tag: "Cast" })

export const read = (actor: Counter) =>
  Effect.flatMap(Deferred.make<number>(), (reply) =>
    Effect.andThen(Queue.offer(actor.inbox, { _tag: "Read", reply }), Deferred.await(reply))
  )

/** A ring; the result sends a number of hops around it. */
export const ring = Effect.fnUntraced(function* (size: number, arrived: () => void) {
  const inboxes: Array<Queue.Queue<number>> = []
  const to = (station: number, hops: number): Effect.Effect<unknown> => {
    const inbox = inboxes[station % size]
    return inbox === undefined ? Effect.die(`there is no station ${station}`) : Queue.offer(inbox, hops)
  }
  for (let i = 0; i < size; i++) {
    const { inbox } = yield* spawn((hops: number) => (hops > 0 ? to(i + 1, hops - 1) : Effect.sync(arrived)))
    inboxes.push(inbox)
  }
  return (hops: number) => to(0, hops)
})
