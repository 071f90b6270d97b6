import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Stream } from "effect"
import { RestClient } from "../src/RestClient.ts"
import type { TinkerError } from "../src/TinkerError.ts"
import * as Service from "./support/fakeService.ts"

const run = (id: number, fields: Record<string, unknown> = {}) => ({
  training_run_id: `s:train:${id}`,
  base_model: "org/base",
  model_owner: "u",
  is_lora: true,
  last_request_time: "2026-08-01T10:00:00Z",
  ...fields
})

const checkpoint = (name: string, fields: Record<string, unknown> = {}) => ({
  checkpoint_id: `weights/${name}`,
  checkpoint_type: "training",
  time: "2026-08-01T10:00:00Z",
  tinker_path: `tinker://s:train:0/weights/${name}`,
  ...fields
})

const pathAndQuery = (url: string) => url.slice(url.indexOf("/api/v1/") + "/api/v1/".length)

/** A service that answers everything but the client's set-up in this way. */
const answering = (answer: (seen: Service.Seen) => Service.Answer | undefined) =>
  Service.make((seen) => (seen.path.startsWith("client/") ? undefined : answer(seen)))

const asked = (fake: Service.Fake) =>
  fake.seen
    .filter((seen) => !seen.path.startsWith("client/"))
    .map(({ json, method, url }) => ({ json, method, url: pathAndQuery(url) }))

/** A service that keeps `total` runs and hands them out in pages of at most `cap`. */
const withRuns = (total: number, cap = 100) =>
  Service.make((seen) => {
    if (seen.path !== "training_runs") return undefined
    const query = new URL(seen.url).searchParams
    const offset = Number(query.get("offset"))
    const limit = Math.min(Number(query.get("limit")), cap)
    const runs = Array.from({ length: Math.max(0, Math.min(limit, total - offset)) }, (_, i) => run(offset + i))
    return { json: { training_runs: runs, cursor: { offset, limit, total_count: total } } }
  })

const over = <A>(fake: Service.Fake, use: (rest: RestClient["Service"]) => Effect.Effect<A, TinkerError>) =>
  Effect.flatMap(RestClient, use).pipe(Effect.provide(Service.connect(fake)))

describe("RestClient", () => {
  it.effect("reads a page of runs and says where it stands", () =>
    Effect.gen(function* () {
      const fake = withRuns(45)
      const page = yield* over(fake, (rest) =>
        rest.listTrainingRuns({ limit: 10, offset: 40, accessScope: "accessible", projectId: "p1" })
      )
      assert.deepStrictEqual(
        page.runs.map((found) => found.trainingRunId),
        [40, 41, 42, 43, 44].map((id) => `s:train:${id}`)
      )
      assert.deepStrictEqual(page.cursor, { offset: 40, limit: 10, totalCount: 45 })
      assert.deepStrictEqual(
        asked(fake).map((seen) => seen.url),
        ["training_runs?limit=10&offset=40&access_scope=accessible&project_id=p1"]
      )
    })
  )

  it.effect("streams all runs, page by page, no page more than asked for", () =>
    Effect.gen(function* () {
      for (const [total, cap, pages] of [
        [0, 100, 1],
        [1, 100, 1],
        [100, 100, 1],
        [101, 100, 2],
        [250, 100, 3],
        [250, 30, 9]
      ] as const) {
        const fake = withRuns(total, cap)
        const runs = yield* over(fake, (rest) => Stream.runCollect(rest.streamTrainingRuns()))
        assert.deepStrictEqual(
          runs.map((found) => found.trainingRunId),
          Array.from({ length: total }, (_, id) => `s:train:${id}`)
        )
        assert.strictEqual(fake.of("training_runs").length, pages, `${total} runs`)
      }
      const fake = withRuns(1000)
      yield* over(fake, (rest) => rest.streamTrainingRuns().pipe(Stream.take(5), Stream.runDrain))
      assert.strictEqual(fake.of("training_runs").length, 1)
    })
  )

  it.effect("ends its stream even where the service forgets the offset or promises too many", () =>
    Effect.gen(function* () {
      const stuck = answering(() => ({
        json: {
          training_runs: Array.from({ length: 100 }, (_, id) => run(id)),
          cursor: { offset: 0, limit: 100, total_count: 150 }
        }
      }))
      assert.strictEqual((yield* over(stuck, (rest) => Stream.runCollect(rest.streamTrainingRuns()))).length, 200)
      const empty = answering(() => ({
        json: { training_runs: [], cursor: { offset: 0, limit: 100, total_count: 150 } }
      }))
      assert.strictEqual((yield* over(empty, (rest) => Stream.runCollect(rest.streamTrainingRuns()))).length, 0)
    })
  )

  it.effect("reads one run with its flag and its last checkpoint", () =>
    Effect.gen(function* () {
      const fake = answering(() => ({
        json: run(3, { corrupted: true, last_request_time: "?", last_checkpoint: checkpoint("a"), new_field: 1 })
      }))
      const found = yield* over(fake, (rest) => rest.getTrainingRun("s:train:3"))
      assert.isTrue(found.corrupted)
      assert.strictEqual(Option.getOrThrow(found.lastCheckpoint).tinkerPath, "tinker://s:train:0/weights/a")
      assert.deepStrictEqual(
        asked(fake).map((seen) => [seen.method, seen.url]),
        [["GET", "training_runs/s:train:3"]]
      )
    })
  )

  it.effect("refuses a run that it cannot read as BadResponse", () =>
    Effect.gen(function* () {
      for (const fields of [{ corrupted: "no" }, { is_lora: null }, { last_checkpoint: { time: "x" } }]) {
        const fake = answering(() => ({ json: run(3, fields) }))
        const error = yield* Effect.flip(over(fake, (rest) => rest.getTrainingRun("s:train:3")))
        assert.strictEqual(error.reason._tag, "BadResponse")
      }
    })
  )

  it.effect("lists the checkpoints of a run and of the account", () =>
    Effect.gen(function* () {
      const fake = answering(() => ({
        json: { checkpoints: [checkpoint("b", { size_bytes: 7, expires_at: null }), checkpoint("a")], cursor: null }
      }))
      const found = yield* over(fake, (rest) => rest.listCheckpoints("s:train:0"))
      assert.deepStrictEqual(
        found.map((one) => [one.checkpointId, one.sizeBytes, one.expiresAt, one.public]),
        [
          ["weights/b", Option.some(7), Option.none(), false],
          ["weights/a", Option.none(), Option.none(), false]
        ]
      )
      assert.strictEqual((yield* over(fake, (rest) => rest.listUserCheckpoints())).length, 2)
      assert.deepStrictEqual(
        asked(fake).map((seen) => seen.url),
        ["training_runs/s:train:0/checkpoints", "checkpoints?limit=100&offset=0"]
      )
    })
  )

  it.effect("deletes a checkpoint and sets its time to live by the two parts of its id", () =>
    Effect.gen(function* () {
      const fake = answering(() => ({ text: "" }))
      const path = "tinker://s:train:0/weights/step-0001"
      yield* over(fake, (rest) => rest.deleteCheckpoint(path))
      yield* over(fake, (rest) => rest.setCheckpointTtl(path, "2 days"))
      yield* over(fake, (rest) => rest.setCheckpointTtl(path, null))
      assert.deepStrictEqual(
        asked(fake).map((seen) => [seen.method, seen.url, seen.json]),
        [
          ["DELETE", "training_runs/s:train:0/checkpoints/weights/step-0001", {}],
          ["PUT", "training_runs/s:train:0/checkpoints/weights/step-0001/ttl", { ttl_seconds: 172_800 }],
          ["PUT", "training_runs/s:train:0/checkpoints/weights/step-0001/ttl", { ttl_seconds: null }]
        ]
      )
    })
  )

  it.effect("reads what a checkpoint needs, what the service can do, and its health", () =>
    Effect.gen(function* () {
      const fake = answering((seen) =>
        seen.path === "get_server_capabilities"
          ? { json: { supported_models: [{ model_name: "org/base", max_context_length: 32_768 }, {}] } }
          : seen.path === "healthz"
            ? { json: { status: "ok" } }
            : undefined
      )
      const info = yield* over(fake, (rest) => rest.weightsInfo("tinker://s:train:0/weights/a"))
      assert.deepStrictEqual(info, {
        baseModel: "org/base",
        isLora: true,
        loraRank: Option.some(16),
        trainMlp: Option.some(false),
        trainAttn: Option.none(),
        trainUnembed: Option.none()
      })
      assert.deepStrictEqual(yield* over(fake, (rest) => rest.getServerCapabilities), [
        { modelName: Option.some("org/base"), maxContextLength: Option.some(32_768) },
        { modelName: Option.none(), maxContextLength: Option.none() }
      ])
      yield* over(fake, (rest) => rest.health)
    })
  )

  it.effect("sends nothing for an argument that cannot be right, and names it", () =>
    Effect.gen(function* () {
      const fake = Service.make()
      const refusals: ReadonlyArray<[string, (rest: RestClient["Service"]) => Effect.Effect<unknown, TinkerError>]> = [
        ...["", "a/b", "..", "a?b", "a b", "%2e%2e"].map((id): (typeof refusals)[number] => [
          "runId",
          (rest) => rest.getTrainingRun(id)
        ]),
        ["runId", (rest) => rest.listCheckpoints("a#b")],
        ["limit", (rest) => rest.listTrainingRuns({ limit: 0 })],
        ["limit", (rest) => rest.listTrainingRuns({ limit: 2.5 })],
        ["limit", (rest) => rest.listTrainingRuns({ limit: 101 })],
        ["limit", (rest) => rest.listUserCheckpoints({ limit: Number.NaN })],
        ["offset", (rest) => rest.listTrainingRuns({ offset: -1 })],
        ["path", (rest) => rest.weightsInfo("weights/a")],
        ["path", (rest) => rest.deleteCheckpoint("tinker://s:train:0/weights/..")],
        ["path", (rest) => rest.deleteCheckpoint("tinker://../weights/a")],
        ["path", (rest) => rest.setCheckpointTtl("tinker://run/adapters/a", "1 day")],
        ["ttl", (rest) => rest.setCheckpointTtl("tinker://run/weights/a", 0)],
        ["ttl", (rest) => rest.setCheckpointTtl("tinker://run/weights/a", "1500 millis")],
        ["ttl", (rest) => rest.setCheckpointTtl("tinker://run/weights/a", "Infinity")]
      ]
      for (const [field, use] of refusals) {
        const error = yield* Effect.flip(over(fake, use))
        assert.strictEqual(error.reason._tag, "InvalidInput", error.message)
        assert.strictEqual(error.reason._tag === "InvalidInput" ? error.reason.field : "", field)
        assert.isFalse(error.isRetryable)
      }
      assert.deepStrictEqual(fake.seen, [])
    })
  )

  it.effect("passes a 404 on as NotFound", () =>
    Effect.gen(function* () {
      const fake = answering(() => Service.failing(404, "no such run"))
      const error = yield* Effect.flip(over(fake, (rest) => rest.getTrainingRun("s:train:9")))
      assert.strictEqual(error.reason._tag, "NotFound")
      assert.include(error.message, "s:train:9")
    })
  )
})
