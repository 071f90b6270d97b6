// The actors of ours that the benchmarks talk to, and the supervisors they live under. Nothing is switched off: mailboxes are
// bounded, calls have their limit of 5 seconds, and every tree has a reader of its events.
import { Actor, ChildSpec, DynamicSupervisor, Supervisor } from "@tinkex/supervision"
import { Effect, Stream } from "effect"

export class Counter extends Actor.make("Counter", {
  init: (count: number) => ({ count }),
  call: {
    echo: (_self, value: number) => value,
    *generate(_self, value: number) {
      return yield* Effect.succeed(value)
    },
    read: (self) => self.state.count
  },
  cast: {
    tick: (self) => {
      self.state.count++
    }
  }
}) {}

/** A counter with something to clean up. */
export class Holder extends Actor.make("Holder", {
  *init(count: number) {
    yield* Effect.addFinalizer(() => Effect.void)
    return { count }
  },
  call: { read: (self) => self.state.count }
}) {}

interface Next {
  readonly cast: { readonly pass: (hops: number) => Effect.Effect<void> }
}

/** Passes on to the next in its ring; `arrived` is told when no hops are left. */
class Station extends Actor.make("Station", {
  init: (arrived: () => void) => ({ arrived, next: undefined as Next | undefined }),
  call: {
    link: (self, next: Next) => {
      self.state.next = next
    }
  },
  cast: {
    pass: (self, hops: number) => {
      if (hops > 0) return self.state.next?.cast.pass(hops - 1)
      self.state.arrived()
      return undefined
    }
  }
}) {}

/** Reads the events of a tree for as long as it lives. */
export const watch = (tree: { readonly events: Stream.Stream<unknown> }) =>
  Effect.forkDetach(Stream.runDrain(tree.events), { startImmediately: true })

export const counter = Effect.gen(function* () {
  const tree = yield* Supervisor.start({ children: [ChildSpec.actor("counter", Counter, 0)] })
  yield* watch(tree)
  return tree.refs.counter
})

/** How to start children that come and go, under a supervisor of their own. */
export const dynamic = Effect.gen(function* () {
  const tree = yield* DynamicSupervisor.start()
  yield* watch(tree)
  return <A extends Actor.AnyActor>(actor: A, argument: Actor.Argument<A>) =>
    tree.startChild(ChildSpec.actor("child", actor, argument, { restart: "temporary" }))
})

export type Start = Effect.Success<typeof dynamic>

/** Starts a ring; the result is its first station. */
export const ring = Effect.fnUntraced(function* (start: Start, size: number, arrived: () => void) {
  const first = yield* start(Station, arrived)
  let last = first
  for (let i = 1; i < size; i++) {
    const next = yield* start(Station, arrived)
    yield* last.call.link(next)
    last = next
  }
  yield* last.call.link(first)
  return first
})
