// The actor of ours that the benchmarks talk to.
import { Actor, ChildSpec, Supervisor } from "@tinkex/supervision"
import { Effect } from "effect"

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

export const counter = Effect.map(
  Supervisor.start({ children: [ChildSpec.actor("counter", Counter, 0)] }),
  (tree) => tree.refs.counter
)
