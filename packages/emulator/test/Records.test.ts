import { createHash } from "node:crypto"
import { gunzipSync } from "node:zlib"
import * as Rest from "@tinkex/tinker/wire/Rest"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import * as Tar from "effect/encoding/Tar"
import { TestClock } from "effect/testing"
import { Emulator, FaultPlan } from "../src/index.ts"
import * as Safetensors from "../src/internal/safetensors.ts"
import * as Api from "./api.ts"

const pathOf = (url: string) => url.replace(/^https?:\/\/[^/]+/, "")

/** A GET of a signed URL, without a key. */
const fetchUrl = (url: string, headers: Record<string, string> = {}) =>
  Api.request("GET", pathOf(url), { key: null, headers })

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")

const unpack = (bytes: Uint8Array) =>
  Stream.make(new Uint8Array(gunzipSync(bytes))).pipe(
    Stream.pipeThroughChannel(Tar.decode()),
    Stream.mapEffect(({ body, header }) =>
      Effect.map(Stream.runCollect(body), (parts) => [header.path, new Uint8Array(Buffer.concat(parts))] as const)
    ),
    Stream.runCollect,
    Effect.map((entries) => new Map(entries))
  )

const trained = Effect.gen(function* () {
  const model = yield* Api.newModel
  const seq = yield* Api.train(model, 1, 0, 2)
  yield* Api.settle(Api.saveWeights(model, seq, "two"))
  const sampler = { model_id: model, seq_id: seq + 1, path: "two", type: "save_weights_for_sampler" }
  yield* Api.settle(Api.post("save_weights_for_sampler", sampler))
  return model
})

const archive = (model: string, checkpoint: string) =>
  Api.get(`training_runs/${model}/checkpoints/${checkpoint}/archive`)

describe("archives", () => {
  it.effect("are a signed URL to a tar.gz of the adapter, its configuration and the marker", () =>
    Effect.gen(function* () {
      const model = yield* trained
      for (const id of ["weights/two", "sampler_weights/two"]) {
        const answer = yield* archive(model, id)
        assert.strictEqual(answer.status, 302)
        assert.strictEqual(answer.headers["expires"], new Date(15 * 60_000).toUTCString())
        const file = yield* fetchUrl(answer.headers["location"] ?? "")
        assert.deepStrictEqual([file.status, file.type], [200, "application/gzip"])
        const files = yield* unpack(file.bytes)
        assert.sameMembers(
          [...files.keys()],
          ["adapter_config.json", "adapter_model.safetensors", "checkpoint_complete"]
        )
        const config: unknown = JSON.parse(new TextDecoder().decode(files.get("adapter_config.json")))
        assert.deepInclude(config, { r: 4, lora_alpha: 32, base_model_name_or_path: "tiny/byte-lm-16" })
        const tensors = Safetensors.decode(files.get("adapter_model.safetensors") ?? new Uint8Array())
        assert.strictEqual(tensors._tag, "Success")
        if (tensors._tag !== "Success") return
        const name = "base_model.model.model.unembed_tokens"
        assert.deepStrictEqual(tensors.success.tensors.get(`${name}.lora_A.weight`)?.shape, [4, 16])
        assert.deepStrictEqual(tensors.success.tensors.get(`${name}.lora_B.weight`)?.shape, [259, 4])
      }
    }).pipe(Api.provided())
  )

  it.effect("honour ranges, so that a download can be resumed", () =>
    Effect.gen(function* () {
      const model = yield* trained
      const url = (yield* archive(model, "weights/two")).headers["location"] ?? ""
      const { bytes, headers } = yield* fetchUrl(url)
      const part = Effect.fnUntraced(function* (range: string, more: Record<string, string> = {}) {
        const answer = yield* fetchUrl(url, { range, ...more })
        return [answer.status, answer.headers["content-range"], sha256(answer.bytes)] as const
      })
      const hex = (from: number, to?: number) => sha256(bytes.subarray(from, to))
      const size = bytes.length
      assert.deepStrictEqual(yield* part("bytes=10-19"), [206, `bytes 10-19/${size}`, hex(10, 20)])
      assert.deepStrictEqual(yield* part("bytes=100-"), [206, `bytes 100-${size - 1}/${size}`, hex(100)])
      assert.deepStrictEqual(yield* part("bytes=-5"), [206, `bytes ${size - 5}-${size - 1}/${size}`, hex(size - 5)])
      assert.deepStrictEqual((yield* part(`bytes=${size}-`)).slice(0, 2), [416, `bytes */${size}`])
      assert.deepStrictEqual((yield* part("bytes=5-", { "if-range": headers["etag"] ?? "" }))[0], 206)
      assert.deepStrictEqual((yield* part("bytes=5-", { "if-range": '"other"' }))[0], 200)
      // Asked for again it is the same file.
      const again = yield* fetchUrl((yield* archive(model, "weights/two")).headers["location"] ?? "")
      assert.strictEqual(again.headers["etag"], headers["etag"])
    }).pipe(Api.provided())
  )

  it.effect("take their time where they shall: 503 until they are there", () =>
    Effect.gen(function* () {
      const model = yield* trained
      const first = yield* archive(model, "weights/two")
      assert.deepStrictEqual([first.status, first.headers["retry-after"]], [503, "60"])
      yield* TestClock.adjust("80 seconds")
      assert.strictEqual((yield* archive(model, "weights/two")).headers["retry-after"], "10")
      yield* TestClock.adjust("10 seconds")
      const { body, status } = yield* archive(model, "weights/two")
      assert.strictEqual(status, 200)
      const { url } = yield* Schema.decodeUnknownEffect(Rest.ArchiveUrl)(body)
      assert.strictEqual((yield* fetchUrl(url)).status, 200)
    }).pipe(Api.provided({ buildTime: "90 seconds", archiveReply: "json" }))
  )

  it.effect("a URL that is forged or over opens nothing; what is damaged or absent has none", () =>
    Effect.gen(function* () {
      const model = yield* trained
      const url = (yield* archive(model, "sampler_weights/two")).headers["location"] ?? ""
      assert.strictEqual((yield* fetchUrl(url.replace(/expires=\d+/, "expires=99999999"))).status, 403)
      assert.strictEqual((yield* fetchUrl(url.replace(/signature=.*/, "signature=x"))).status, 403)
      yield* TestClock.adjust("15 minutes")
      assert.strictEqual((yield* fetchUrl(url)).status, 403)
      assert.strictEqual((yield* archive(model, "weights/two")).status, 404)
      assert.strictEqual((yield* archive(model, "weights/none")).status, 404)
      assert.strictEqual((yield* archive(model, "other/two")).status, 400)
    }).pipe(Api.provided({ faults: FaultPlan.make([FaultPlan.checkpointTruncated({ save: 1 })]) }))
  )
})

describe("traces", () => {
  it.effect("are pending, then a file of slices", () =>
    Effect.gen(function* () {
      const model = yield* trained
      const session = model.slice(0, model.indexOf(":"))
      const ask = Effect.flatMap(Api.get(`sessions/${session}/trace_export`), ({ body }) =>
        Schema.decodeUnknownEffect(Rest.TraceExport)(body)
      )
      assert.deepStrictEqual(yield* ask, { status: "pending" })
      yield* TestClock.adjust("5 seconds")
      const { status, url } = yield* ask
      assert.strictEqual(status, "ready")
      const text = Buffer.from((yield* fetchUrl(url ?? "")).bytes).toString("latin1")
      assert.strictEqual(text.charCodeAt(0), 0x0a)
      for (const name of [session, model, "create_model", "optim_step", "save_weights_for_sampler"]) {
        assert.include(text, name)
      }
      assert.strictEqual((yield* Api.get("sessions/none/trace_export")).status, 404)
    }).pipe(Api.provided({ buildTime: "5 seconds" }))
  )
})

describe("telemetry", () => {
  const event = {
    event: "GENERIC_EVENT",
    event_id: "6f1f3e0e-8f4c-4d1d-9d8c-0b1d1f6d3a10",
    event_session_index: 0,
    severity: "INFO",
    timestamp: "2026-01-01T00:00:00Z",
    event_name: "x",
    event_data: { n: 1 }
  }
  const batch = (events: ReadonlyArray<unknown>) =>
    Api.post("telemetry", {
      events,
      platform: "Linux",
      sdk_version: "x",
      session_id: "sessionless-1",
      process_uuid: "u"
    })

  it.effect("is kept for the control plane; batches are of 1 to 100 events", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      assert.strictEqual((yield* batch([event, { ...event, event: "SESSION_START" }])).body.status, "accepted")
      const kept = yield* control.telemetry
      assert.deepStrictEqual(
        kept.map(({ event, sessionId }) => [sessionId, event.event]),
        [
          ["sessionless-1", "GENERIC_EVENT"],
          ["sessionless-1", "SESSION_START"]
        ]
      )
      assert.strictEqual((yield* batch([])).status, 422)
      assert.strictEqual((yield* batch(Array.from({ length: 101 }, () => event))).status, 422)
      assert.strictEqual((yield* batch([{ event: "OTHER" }])).status, 422)
    }).pipe(Api.provided())
  )
})

describe("audit", () => {
  it.effect("tells what was done on a day, or with checkpoints only", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust("23 hours")
      const model = yield* trained
      yield* Api.request("DELETE", `/api/v1/training_runs/${model}/checkpoints/weights/two`)
      yield* TestClock.adjust("2 hours")
      yield* Api.newModel
      const entries = (query: string) =>
        Effect.flatMap(Api.get(`audit${query}`), ({ body }) =>
          Effect.map(Schema.decodeUnknownEffect(Rest.Audit)(body), ({ entries }) => entries)
        )
      assert.deepStrictEqual(
        (yield* entries("?event_type=all&day=1970-01-01")).map(({ event, tinker_path }) => [event, tinker_path]),
        [
          ["model_created", undefined],
          ["checkpoint_saved", `tinker://${model}/weights/two`],
          ["checkpoint_saved", `tinker://${model}/sampler_weights/two`],
          ["checkpoint_deleted", `tinker://${model}/weights/two`]
        ]
      )
      assert.strictEqual((yield* entries("?event_type=checkpoints&day=1970-01-01")).length, 3)
      assert.strictEqual((yield* entries("")).length, 1)
      assert.strictEqual((yield* Api.get("audit?event_type=x")).status, 422)
      assert.strictEqual((yield* Api.get("audit?day=yesterday")).status, 422)
    }).pipe(Api.provided())
  )
})

describe("billing", () => {
  it.effect("adds tokens, checkpoints and storage up by the hour", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust("10 hours")
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const seq = yield* Api.train(model, 1, 0, 2)
      yield* Api.settle(Api.saveWeights(model, seq, "one"))
      const tokens = Api.batches
        .slice(0, 2)
        .flat()
        .reduce((sum, datum) => sum + (datum.lossFnInputs["target_tokens"]?.data.length ?? 0), 0)
      yield* TestClock.adjust("1 hour")
      // The session ended meanwhile.
      const sampler = {
        session_id: yield* Api.createSession,
        sampling_session_seq_id: 0,
        base_model: "tiny/byte-lm-16"
      }
      const { sampling_session_id } = (yield* Api.post("create_sampling_session", sampler)).body
      const params = { max_tokens: 3, seed: 1 }
      const ask = { sampling_session_id, seq_id: 0, prompt: { chunks: [{ tokens: [1, 2] }] }, sampling_params: params }
      yield* Api.settle(Api.post("asample", ask))

      const usage = yield* Effect.flatMap(
        Api.get("billing/usage/events?starting_on=1970-01-01T10:00:00Z&ending_before=1970-01-01T13:00:00Z"),
        ({ body }) => Schema.decodeUnknownEffect(Rest.BillingUsage)(body)
      )
      const of = (type: string) =>
        usage.data
          .filter(({ event_info }) => event_info.type === type)
          .map((event) => [event.bucket_start, event.event_info])
      const [ten, eleven] = ["1970-01-01T10:00:00.000Z", "1970-01-01T11:00:00.000Z"]
      assert.deepStrictEqual(of("training"), [[ten, { type: "training", token_count: tokens }]])
      assert.deepStrictEqual(of("checkpoint"), [[ten, { type: "checkpoint", count: 1 }]])
      assert.deepStrictEqual(of("sampling_prefill"), [
        [eleven, { type: "sampling_prefill", cached: false, token_count: 2 }]
      ])
      assert.deepStrictEqual(of("sampling_sample"), [[eleven, { type: "sampling_sample", token_count: 3 }]])
      assert.strictEqual(of("storage").length, 1)
      assert.isDefined(usage.sessions[session])

      for (const query of [
        "",
        "?starting_on=1970-01-01T10:30:00Z&ending_before=1970-01-01T13:00:00Z",
        "?starting_on=1970-01-01T10:00:00Z&ending_before=1970-01-01T10:00:00Z",
        "?starting_on=1970-01-01T10:00:00Z&ending_before=1970-01-16T10:00:00Z",
        "?starting_on=1970-01-02T10:00:00Z&ending_before=1970-01-02T11:00:00Z"
      ]) {
        assert.strictEqual((yield* Api.get(`billing/usage/events${query}`)).status, 400, query)
      }
    }).pipe(Api.provided())
  )
})
