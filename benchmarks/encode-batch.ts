// What becomes of a batch between the caller's hands and the socket: checked, cut into requests, written as protobuf. Once from
// datums, once from the plain lists that datums are made of. Nothing is sent.
import { Effect, Schema } from "effect"
import { Datum } from "@tinkex/tinker"
import * as Json from "@tinkex/tinker/wire/Json"
import * as Operations from "../packages/tinker/src/internal/operations.ts"
import { type Benches, compare, median, roundsOf } from "./kit.ts"
import { official } from "./peers/python/official.ts"
import { sampled } from "./sampling.ts"

const length = 4096
const config = Schema.decodeUnknownSync(Json.ClientConfig)({})

const make = (lists: ReadonlyArray<ReadonlyArray<number>>) => {
  const weights = Array.from({ length }, () => 1)
  return Effect.forEach(lists, (tokens) =>
    Datum.make({ modelInput: Datum.fromTokens(tokens), lossFnInputs: { target_tokens: tokens, weights } })
  )
}

const encode = Effect.fnUntraced(function* (data: ReadonlyArray<Datum.Datum>) {
  const draft = yield* Operations.pass("forward_backward", data, { loss: "cross_entropy" }, config)
  let bytes = 0
  for (let part = 0; part < draft.count; part++) {
    bytes += (yield* draft.request(part, { modelId: "model", seqId: part + 1 })).body?.byteLength ?? 0
  }
  return bytes
})

const work = Effect.fnUntraced(function* (datums: number) {
  const lists = Array.from({ length: datums }, (_, row) =>
    Array.from({ length }, (_, i) => (row * 31 + i * 7) % 150_000)
  )
  const data = yield* make(lists)
  const timings = (run: Effect.Effect<unknown, unknown>) =>
    Effect.gen(function* () {
      const taken: Array<number> = []
      for (let round = 0; round < 8; round++) {
        const began = performance.now()
        yield* run
        if (round >= 3) taken.push(performance.now() - began)
      }
      return median(taken)
    })
  return [yield* timings(encode(data)), yield* timings(Effect.flatMap(make(lists), encode))]
})

const sample = await sampled(import.meta, { encode: work })

export const benches: Benches = {
  "encode-batch": (options) => {
    const datums = options.quick ? 256 : 1024
    return compare({
      benches: ["encode-batch", "encode-batch-from-lists"],
      unit: "ms",
      better: "lower",
      rounds: options.quick ? 3 : roundsOf({ quick: true }) + 2,
      ours: sample("encode", datums),
      peers: official("encode", [datums, length, 5], { target: { atLeast: 2 } })
    })
  }
}
