import { execFile } from "node:child_process"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { supportTone, temporaryFolder, tinkex } from "./kit.ts"

const program = fileURLToPath(new URL("otelProgram.ts", import.meta.url))

interface Span {
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parent: string | null
  readonly service: string
  readonly attributes: Readonly<Record<string, unknown>>
  readonly events: ReadonlyArray<string>
}

describe("Telemetry", () => {
  it("gives the spans of one incident, and no other, its id", { timeout: 60_000 }, async () => {
    const run = promisify(execFile)(process.execPath, ["--conditions=@tinkex/source", program, supportTone])
    const { incident, spans } = JSON.parse((await run).stdout) as {
      readonly incident: string
      readonly spans: ReadonlyArray<Span>
    } // what otelProgram.ts prints
    const root = spans.find(({ name }) => name === "recovery.incident")
    assert(root !== undefined)
    assert.strictEqual(root.service, "tinkex")
    assert.includeMembers(
      [...root.events],
      ["detected", "started", "checkpoint_selected", "client_created", "completed"]
    )

    const parents = new Map(spans.map(({ parent, spanId }) => [spanId, parent]))
    const isWithin = (spanId: string | null | undefined): boolean =>
      spanId !== null && spanId !== undefined && (spanId === root.spanId || isWithin(parents.get(spanId)))
    const within = spans.filter(({ spanId }) => isWithin(spanId))
    const marked = spans.filter(({ attributes }) => attributes["recovery.incident"] === incident)
    assert.deepStrictEqual(marked, within)
    assert.includeMembers(
      marked.map(({ name }) => name),
      [
        "recovery.incident",
        "Restore.fromCheckpoint",
        "ServiceClient.createLoraTrainingClient",
        "TrainingClient.loadState"
      ]
    )
    assert.strictEqual(new Set(marked.map(({ traceId }) => traceId)).size, 1)
    assert.isAbove(spans.length, marked.length)
  })

  it("is what --otel sends to the endpoint", { timeout: 60_000 }, async () => {
    const bodies: Array<string> = []
    const collector = createServer((request, response) => {
      let body = ""
      request.setEncoding("utf8").on("data", (text: string) => (body += text))
      request.on("end", () => {
        bodies.push(`${request.url} ${body}`)
        response.end("{}")
      })
    })
    await new Promise<void>((resolve) => collector.listen(0, "127.0.0.1", resolve))
    const address = collector.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    const train = ["train", supportTone, "--emulator", "--steps", "3", "--journal", temporaryFolder(), "--otel"]
    try {
      const ended = await tinkex(train, { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}` })
      assert.strictEqual(ended.code, 0, ended.stderr)
    } finally {
      collector.close()
    }
    assert.isTrue(bodies.every((body) => body.startsWith("/v1/traces ")))
    assert.include(bodies.join(""), "Trainer.fineTune")
    assert.include(bodies.join(""), "tinkex")
    assert.notInclude(bodies.join(""), "tml-")
  })
})
