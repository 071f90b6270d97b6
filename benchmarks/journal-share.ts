// What the journal takes of a run's throughput at 1,000 steps a second: four steps in flight on a server that needs 4 ms for
// each, every step written down before it is sent and again when it is committed, four steps to a flush as the trainer has it;
// against the same loop without a journal.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { NodeServices } from "@effect/platform-node"
import { Effect, Exit, Fiber, Layer, Scope } from "effect"
import { Journal, type JournalRecord } from "@tinkex/training"
import { type Benches, compare, roundsOf } from "./kit.ts"
import { perSecond } from "./sampling.ts"

const ahead = 4
const serverMillis = 4

type Append = (record: JournalRecord.JournalRecord) => Effect.Effect<void, unknown>

const intent = (step: number): JournalRecord.JournalRecord => ({
  _tag: "Step",
  attempt: 1,
  step,
  ops: [
    { kind: "forward_backward", seqIds: [2 * step + 1], digest: "f".repeat(64) },
    { kind: "optim_step", seqIds: [2 * step + 2], digest: "0".repeat(64) }
  ],
  save: null,
  userState: null
})

/** A server that takes one step after another, each for its time, whether or not anybody asks. */
const pace = () => {
  let free = performance.now()
  return Effect.callback<void>((resume) => {
    free = Math.max(free, performance.now()) + serverMillis / ahead
    const due = free + serverMillis - serverMillis / ahead
    const timer = setTimeout(() => resume(Effect.void), Math.max(0, due - performance.now()))
    return Effect.sync(() => clearTimeout(timer))
  })
}

const loop = (steps: number, append: Append, appendLazy: Append) =>
  Effect.gen(function* () {
    const serve = pace()
    const inflight: Array<Fiber.Fiber<void>> = []
    const write = (from: number) =>
      Effect.forEach([0, 1, 2], (k) => appendLazy(intent(from + k)), { discard: true }).pipe(
        Effect.andThen(append(intent(from + 3)))
      )
    let ready = yield* Effect.forkChild(write(0), { startImmediately: true })
    const began = performance.now()
    for (let step = 0; step < steps; step++) {
      if (step % 4 === 0) {
        yield* Fiber.join(ready)
        ready = yield* Effect.forkChild(write(step + 4), { startImmediately: true })
      }
      inflight.push(yield* Effect.forkChild(serve, { startImmediately: true }))
      if (inflight.length > ahead) {
        const head = inflight.shift()
        if (head !== undefined) yield* Fiber.join(head)
        yield* appendLazy({ _tag: "Commit", attempt: 1, step: step - ahead, metrics: { "loss:sum": 1.5 } })
      }
    }
    yield* Effect.forEach(inflight, Fiber.join)
    return [perSecond(steps, performance.now() - began)]
  })

const measure = async (steps: number, rounds: number) => {
  const directory = mkdtempSync(join(tmpdir(), "tinkex-bench-"))
  const scope = await Effect.runPromise(Scope.make())
  try {
    const context = await Effect.runPromise(
      Layer.buildWithScope(Journal.layerFileSystem(directory).pipe(Layer.provide(NodeServices.layer)), scope)
    )
    const open = await Effect.runPromise(
      Effect.flatMap(Journal, (journal) => journal.open("bench")).pipe(Effect.provide(context), Scope.provide(scope))
    )
    const nothing: Append = () => Effect.void
    const journaled = () => Effect.runPromise(loop(steps, open.append, open.appendLazy))
    const bare = () => Effect.runPromise(loop(steps, nothing, nothing))
    await bare()
    await journaled()
    return await compare({
      benches: ["journal-share"],
      unit: "steps/s",
      better: "higher",
      rounds,
      ours: journaled,
      peers: [{ name: "the same loop without a journal", sample: bare, target: { atLeast: 0.99 } }]
    })
  } finally {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    rmSync(directory, { recursive: true, force: true })
  }
}

export const benches: Benches = {
  "journal-share": async (options) => measure(options.quick ? 1000 : 3000, roundsOf(options))
}
