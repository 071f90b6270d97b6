import { Actor, ChildSpec, SupervisionEvent, Supervisor } from "@tinkex/supervision"
import { Effect, Fiber, Stream } from "effect"

/** Lets everything that can run without time run. */
export const settle = Effect.yieldNow.pipe(Effect.repeat({ times: 20 }), Effect.asVoid)

/** The events of a tree as they arrive, past ones included. */
export const record = (events: Stream.Stream<SupervisionEvent.SupervisionEvent>) =>
  Effect.gen(function* () {
    const seen: Array<SupervisionEvent.SupervisionEvent> = []
    yield* events.pipe(
      Stream.runForEach((event) => Effect.sync(() => seen.push(event))),
      Effect.forkScoped({ startImmediately: true })
    )
    return seen
  })

export const tags = (events: ReadonlyArray<SupervisionEvent.SupervisionEvent>) =>
  events.map((event) => `${event._tag} ${event.child}`)

/** Whether it has ended by now. */
export const pending = (fiber: Fiber.Fiber<unknown, unknown>) => fiber.pollUnsafe() === undefined

/** An actor that writes down its life: `+id`, `-id`. It crashes on demand. */
export class Witness extends Actor.make("Witness", {
  *init({ id, log }: { readonly id: string; readonly log: Array<string> }) {
    log.push(`+${id}`)
    yield* Effect.addFinalizer(() => Effect.sync(() => log.push(`-${id}`)))
    return { id }
  },
  call: { ping: (self) => `${self.state.id}${self.generation}` },
  cast: {
    crash: () => {
      throw new Error("crash")
    }
  }
}) {}

export const witness = <const Id extends string>(id: Id, log: Array<string>, options?: ChildSpec.ChildOptions) =>
  ChildSpec.actor(id, Witness, { id, log }, options)

export const one = <A extends Actor.AnyActor>(actor: A, arg: Actor.Argument<A>, options?: ChildSpec.ChildOptions) =>
  Effect.map(Supervisor.start({ children: [ChildSpec.actor("it", actor, arg, options)] }), (tree) => ({
    tree,
    ref: tree.refs.it
  }))
