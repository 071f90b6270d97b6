/** Opens the run `argv[3]` below `argv[2]`, writes one step, says so on stdout and holds it until it is killed. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import { Journal } from "../../src/Journal.ts"
import { step } from "../fixtures.ts"

const [, , directory = "", run = ""] = process.argv

const program = Effect.gen(function* () {
  const open = yield* (yield* Journal).open(run)
  yield* open.append(step(1, 0))
  yield* open.appendLazy(step(1, 1))
  process.stdout.write(`open ${open.epoch}\n`)
  return yield* Effect.never
}).pipe(
  Effect.scoped,
  Effect.provide(Journal.layerFileSystem(directory)),
  Effect.provide(NodeServices.layer),
  Effect.catchTag("JournalError", (error) => Effect.sync(() => process.stdout.write(`${error.reason._tag}\n`)))
)

await Effect.runPromise(Effect.timeoutOption(program, "60 seconds"))
