/** Trains through one incident with an in-memory exporter and prints the spans; run by Telemetry.test.ts in a plain Node. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base"
import { Console, Effect, Layer } from "effect"
import { Emulator, FaultPlan } from "@tinkex/emulator"
import { Recovery } from "@tinkex/recovery"
import { Tinker, Tokenizer } from "@tinkex/tinker"
import { CheckpointPolicy, Dataset, Journal, Trainer } from "@tinkex/training"
import * as Telemetry from "../src/Telemetry.ts"

const Offline = Tinker.layer({ apiKey: "tml-offline" }).pipe(
  Layer.provide(Emulator.layerHttpClient({ faults: FaultPlan.make([FaultPlan.corrupt({ atStep: 6 })]) }))
)

// The exporter of the SDK forgets everything when it is shut down, which the layer does in the end.
class Kept extends InMemorySpanExporter {
  override shutdown() {
    return Promise.resolve()
  }
}

const exporter = new Kept()

const plain = (span: ReadableSpan) => ({
  name: span.name,
  traceId: span.spanContext().traceId,
  spanId: span.spanContext().spanId,
  parent: span.parentSpanContext?.spanId ?? null,
  service: span.resource.attributes["service.name"],
  attributes: span.attributes,
  events: span.events.map(({ name }) => name)
})

const program = Effect.gen(function* () {
  const report = yield* Trainer.fineTune({
    name: "traced",
    model: { baseModel: "tiny/byte-lm-16", rank: 2 },
    data: Dataset.jsonl(process.argv[2] ?? "", { batchSize: 4 }),
    learningRate: 0.01,
    checkpoints: CheckpointPolicy.everySteps(3)
  }).pipe(
    Effect.provide(Recovery.layer({ enabled: true })),
    Effect.provide(Offline),
    Effect.provide([Journal.layerMemory, Tokenizer.layerBytes, NodeServices.layer]),
    Effect.provide(Telemetry.layer(new SimpleSpanProcessor(exporter)))
  )
  const [incident] = report.incidents
  yield* Console.log(JSON.stringify({ incident: incident?.id, spans: exporter.getFinishedSpans().map(plain) }))
})

program.pipe(NodeRuntime.runMain)
