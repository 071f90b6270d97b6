import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { HttpClient } from "effect/http"
import { Emulator } from "@tinkex/emulator"
import { Tinker } from "@tinkex/tinker"
import { Journal, JournalStore } from "../src/index.ts"
import { tinyLoop } from "./TinyLoop.ts"
import { tiny } from "./TinyRun.ts"

const submission = /\/(forward_backward|forward|optim_step|save_weights|save_weights_for_sampler)$/

describe("RP1, SC1: nothing is sent that is not written down", () => {
  for (const [name, run, program] of [
    ["a step that asks for no result", "tiny", tiny({ every: 4, pipelining: 3, rehearse: false })],
    ["a step that awaits what it has asked for", "tiny-rl", tinyLoop({ rehearse: false })],
    ["steps that await, one ahead of the other", "tiny-rl", tinyLoop({ pipelining: 1, rehearse: false })]
  ] as const) {
    it.effect(name, () =>
      Effect.gen(function* () {
        const store = JournalStore.memory()
        const early: Array<string> = []
        let sent = 0
        const watched = Effect.map(
          HttpClient.HttpClient,
          HttpClient.transform((response, request) =>
            Effect.suspend(() => {
              if (!submission.test(request.url)) return response
              sent++
              // One request for each place in the sequence, in its order; places count from 1.
              return Effect.flatMap(Effect.orDie(store.read(run)), (records) => {
                const written = new Set<number>()
                for (const { record } of records._tag === "Some" ? records.value : []) {
                  if (record._tag === "Step") for (const op of record.ops) for (const seq of op.seqIds) written.add(seq)
                  if (record._tag === "Save") for (const seq of record.op.seqIds) written.add(seq)
                }
                if (!written.has(sent)) early.push(`request ${sent} to ${request.url}`)
                return response
              })
            })
          )
        )
        yield* program.pipe(
          Effect.provide([
            Tinker.layer({ apiKey: Redacted.make("tml-test") }).pipe(
              Layer.provide(Layer.effect(HttpClient.HttpClient, watched))
            ),
            Journal.layerStore(store)
          ])
        )
        assert.deepStrictEqual(early, [])
        assert.isAtLeast(sent, 20)
      }).pipe(Effect.provide(Emulator.layerHttpClient()))
    )
  }
})
