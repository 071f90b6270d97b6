import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base"
import { Effect, Layer } from "effect"
import { Emulator, FaultPlan } from "@tinkex/emulator"
import { Recovery } from "@tinkex/recovery"
import { Tinker, Tokenizer } from "@tinkex/tinker"
import { CheckpointPolicy, Dataset, Journal, Trainer } from "@tinkex/training"
import * as Telemetry from "../src/Telemetry.ts"
import { supportTone } from "./kit.ts"

const Offline = Tinker.layer({ apiKey: "tml-offline" }).pipe(
  Layer.provide(Emulator.layerHttpClient({ faults: FaultPlan.make([FaultPlan.corrupt({ atStep: 6 })]) }))
)

describe("Telemetry", () => {
  it.live("gives the spans of one incident one id", () =>
    Effect.gen(function* () {
      const exporter = new InMemorySpanExporter()
      const report = yield* Trainer.fineTune({
        name: "traced",
        model: { baseModel: "tiny/byte-lm-16", rank: 2 },
        data: Dataset.jsonl(supportTone, { batchSize: 4 }),
        learningRate: 0.01,
        checkpoints: CheckpointPolicy.everySteps(3)
      }).pipe(
        Effect.provide(Recovery.layer({ enabled: true })),
        Effect.provide(Offline),
        Effect.provide([Journal.layerMemory, Tokenizer.layerBytes, NodeServices.layer]),
        Effect.tap(() => Effect.sync(() => exporter.getFinishedSpans())),
        Effect.provide(Telemetry.layer(new SimpleSpanProcessor(kept(exporter))))
      )
      const [incident] = report.incidents
      const spans = exporter.getFinishedSpans()
      assert.isAbove(spans.length, 10)
      assert.strictEqual(spans[0]?.resource.attributes["service.name"], "tinkex")
      const ofIncident = spans.filter(({ attributes }) => attributes["recovery.incident"] === incident?.id)
      assert.isAtLeast(ofIncident.length, 1, spans.map(({ name }) => name).join(" "))
      const trace = ofIncident[0]?.spanContext().traceId
      assert.isTrue(ofIncident.every((span) => span.spanContext().traceId === trace))
      console.log(
        ofIncident.map(({ name }) => name),
        new Set(spans.map(({ name }) => name))
      )
    })
  )
})

/** The SDK shuts its exporter down with the layer, and this one forgets everything then. */
const kept = (exporter: InMemorySpanExporter): InMemorySpanExporter =>
  Object.assign(exporter, { shutdown: () => Promise.resolve() })
