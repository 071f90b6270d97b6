// An emulator that computes nothing, in a process of its own: prints its URL, and for every line of its standard input poisons
// the models that are not yet poisoned and prints their number. Serves until the input ends.
import { createInterface } from "node:readline"
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Effect } from "effect"
import { Emulator } from "@tinkex/emulator"

const poisoned = new Set<string>()

Effect.gen(function* () {
  const { control, url } = yield* Emulator
  console.log(url)
  const lines = createInterface({ input: process.stdin })
  lines.on("close", () => process.exit(0))
  for (;;) {
    yield* Effect.promise(() => new Promise((resolve) => lines.once("line", resolve)))
    const models = (yield* control.models).filter(({ modelId }) => !poisoned.has(modelId))
    for (const { modelId } of models) {
      poisoned.add(modelId)
      yield* control.poison(modelId)
    }
    console.log(models.length)
  }
}).pipe(
  Effect.provide(Emulator.layer({ compute: "none", sessionTimeout: "10 minutes" })),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
