import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Exit, Fiber, Layer, Option, Redacted, Stream } from "effect"
import { TestClock } from "effect/testing"
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

  it.effect("reads flags by the page: a flag that is none is unreadable, a row that is no run is passed over", () =>
    Effect.gen(function* () {
      const fake = answering(() => ({
        json: {
          training_runs: [
            run(0),
            run(1, { corrupted: true }),
            run(2, { corrupted: "yes", last_request_time: "2026-08-01 10:00:00" }),
            run(3, { corrupted: null, last_request_time: "yesterday" }),
            null,
            { corrupted: true }
          ],
          cursor: { offset: 0, limit: 100 }
        }
      }))
      const { runs, totalCount } = yield* over(fake, (rest) => rest.listRunFlags({ limit: 100 }))
      const at = Date.parse("2026-08-01T10:00:00Z")
      assert.deepStrictEqual(
        runs.map(({ corrupted, lastRequestMillis }) => [corrupted, lastRequestMillis]),
        [
          [false, at],
          [true, at],
          [undefined, at],
          [undefined, undefined]
        ]
      )
      assert.isUndefined(totalCount)
      const strange = answering(() => ({ json: { runs: [] } }))
      const error = yield* Effect.flip(over(strange, (rest) => rest.listRunFlags()))
      assert.strictEqual(error.reason._tag, "BadResponse")
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

  it.effect("lists checkpoints of types that came after it beside the others, with their labels", () =>
    Effect.gen(function* () {
      const labelled = { user_metadata: { by: "ann" } }
      const list = [
        checkpoint("a", labelled),
        checkpoint("b", { checkpoint_type: "external" }),
        checkpoint("c", { checkpoint_type: "astral" })
      ]
      // What is unusual in one of them is for the schema: both ways of reading a list have to agree.
      for (const time of ["2026-08-01T10:00:00Z", "yesterday-ish"]) {
        const fake = answering(() => ({ json: { checkpoints: [...list, checkpoint("d", { time })] } }))
        const found = yield* over(fake, (rest) => rest.listCheckpoints("s:train:0"))
        assert.deepStrictEqual(
          found.map((one) => [one.checkpointType, one.userMetadata]),
          [
            ["training", Option.some(labelled.user_metadata)],
            ["external", Option.none()],
            ["astral", Option.none()],
            ["training", Option.none()]
          ]
        )
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
      assert.deepStrictEqual(yield* over(fake, (rest) => rest.getServerCapabilities()), [
        { modelName: Option.some("org/base"), maxContextLength: Option.some(32_768) },
        { modelName: Option.none(), maxContextLength: Option.none() }
      ])
      yield* over(fake, (rest) => rest.health())
    })
  )

  it.effect("streams only the runs that failed, or only those that are well", () =>
    Effect.gen(function* () {
      const fake = answering(() => ({
        json: {
          training_runs: Array.from({ length: 9 }, (_, id) => run(id, id % 3 === 0 ? { corrupted: true } : {})),
          cursor: { offset: 0, limit: 100, total_count: 9 }
        }
      }))
      for (const [corrupted, ids] of [
        [true, [0, 3, 6]],
        [false, [1, 2, 4, 5, 7, 8]],
        [undefined, [0, 1, 2, 3, 4, 5, 6, 7, 8]]
      ] as const) {
        const runs = yield* over(fake, (rest) =>
          Stream.runCollect(rest.streamTrainingRuns({ corrupted, projectId: "p" }))
        )
        assert.deepStrictEqual(
          runs.map((found) => found.trainingRunId),
          ids.map((id) => `s:train:${id}`)
        )
      }
      assert.strictEqual(asked(fake)[0]?.url, "training_runs?limit=100&offset=0&access_scope=owned&project_id=p")
    })
  )

  it.effect("streams all checkpoints of the account, with a cursor and without one", () =>
    Effect.gen(function* () {
      for (const [total, cursor, pages] of [
        [0, true, 1],
        [1000, true, 1],
        [2500, true, 3],
        [999, false, 1],
        [2500, false, 3]
      ] as const) {
        const fake = answering((seen) => {
          const query = new URL(seen.url).searchParams
          const [offset, limit] = [Number(query.get("offset")), Number(query.get("limit"))]
          const names = Array.from({ length: Math.max(0, Math.min(limit, total - offset)) }, (_, i) => `${offset + i}`)
          const checkpoints = names.map((name) => checkpoint(name))
          return { json: cursor ? { checkpoints, cursor: { offset, limit, total_count: total } } : { checkpoints } }
        })
        const found = yield* over(fake, (rest) => Stream.runCollect(rest.streamUserCheckpoints()))
        assert.deepStrictEqual(
          found.map((one) => one.checkpointId),
          Array.from({ length: total }, (_, i) => `weights/${i}`)
        )
        assert.strictEqual(asked(fake).length, pages, `${total} ${cursor}`)
      }
    })
  )

  it.effect("finds the run of a checkpoint, and a checkpoint by its path", () =>
    Effect.gen(function* () {
      const fake = answering((seen) =>
        seen.path.endsWith("/checkpoints")
          ? { json: { checkpoints: [checkpoint("b"), checkpoint("a", { size_bytes: 5 })] } }
          : { json: run(0) }
      )
      const path = "tinker://s:train:0/weights/a"
      assert.strictEqual((yield* over(fake, (rest) => rest.getTrainingRunByPath(path))).trainingRunId, "s:train:0")
      assert.deepStrictEqual((yield* over(fake, (rest) => rest.getCheckpoint(path))).sizeBytes, Option.some(5))
      const error = yield* Effect.flip(over(fake, (rest) => rest.getCheckpoint("tinker://s:train:0/weights/c")))
      assert.strictEqual(error.reason._tag, "NotFound")
      assert.include(error.message, "weights/c")
      assert.deepStrictEqual(
        asked(fake).map((seen) => seen.url),
        ["training_runs/s:train:0", "training_runs/s:train:0/checkpoints", "training_runs/s:train:0/checkpoints"]
      )
    })
  )

  it.effect("publishes and unpublishes; what is so already is a conflict, and not tried again", () =>
    Effect.gen(function* () {
      const path = "tinker://s:train:0/sampler_weights/a"
      const fake = answering(() => ({ text: "" }))
      yield* over(fake, (rest) => rest.publishCheckpoint(path))
      yield* over(fake, (rest) => rest.unpublishCheckpoint(path))
      assert.deepStrictEqual(
        asked(fake).map((seen) => [seen.method, seen.url]),
        [
          ["POST", "training_runs/s:train:0/checkpoints/sampler_weights/a/publish"],
          ["DELETE", "training_runs/s:train:0/checkpoints/sampler_weights/a/publish"]
        ]
      )
      const already = answering(() => Service.failing(409, "already public"))
      const error = yield* Effect.flip(over(already, (rest) => rest.publishCheckpoint(path)))
      assert.strictEqual(error.reason._tag, "Conflict")
      assert.strictEqual(asked(already).length, 1)
    })
  )

  it.effect(
    "takes a change for made where its first answer was lost and the second says that nothing is left to do",
    () =>
      Effect.gen(function* () {
        const path = "tinker://s:train:0/weights/a"
        const changes: ReadonlyArray<[number, (rest: RestClient["Service"]) => Effect.Effect<void, TinkerError>]> = [
          [409, (rest) => rest.publishCheckpoint(path)],
          [409, (rest) => rest.unpublishCheckpoint(path)],
          [404, (rest) => rest.deleteCheckpoint(path)]
        ]
        for (const [status, change] of changes) {
          for (const lost of [Service.refused, Service.failing(500)]) {
            const fake = answering((seen) => (seen.nth === 0 ? lost : Service.failing(status)))
            const fiber = yield* Effect.forkChild(over(fake, change))
            yield* TestClock.adjust("10 seconds")
            yield* Fiber.join(fiber)
            assert.strictEqual(asked(fake).length, 2)
          }
          const wrong = answering(() => Service.failing(status))
          assert.isDefined(yield* Effect.flip(over(wrong, change)))
        }
      })
  )

  it.effect("reads the address of an archive from a redirect, with its end in all its forms", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(Date.UTC(2026, 7, 1, 10))
      const url = "https://files.test/a.tar.gz?signature=hunter2"
      const forms: ReadonlyArray<[Record<string, string>, number]> = [
        [{ expires: "Sat, 01 Aug 2026 11:00:00 GMT" }, 60],
        [{ expires: "Sat, 01 Aug 2026 11:00:00" }, 60],
        [{ expires: "2026-08-01T11:00:00" }, 60],
        [{ expires: "soon" }, 15],
        [{}, 15]
      ]
      for (const [headers, minutes] of forms) {
        const fake = answering(() => ({ status: 302, text: "", headers: { location: url, ...headers } }))
        const found = yield* over(fake, (rest) => rest.getCheckpointArchiveUrl("tinker://s:train:0/weights/a"))
        assert.strictEqual(Redacted.value(found.url), url)
        assert.notInclude(String(found.url) + JSON.stringify(found), "hunter2")
        assert.strictEqual(DateTime.toEpochMillis(found.expires), Date.UTC(2026, 7, 1, 10, minutes))
        assert.deepStrictEqual(
          asked(fake).map((seen) => [seen.method, seen.url]),
          [["GET", "training_runs/s:train:0/checkpoints/weights/a/archive"]]
        )
      }
      const json = answering(() => ({ json: { url, expires: "2026-08-01T12:00:00Z" } }))
      const found = yield* over(json, (rest) => rest.getCheckpointArchiveUrl("tinker://s:train:0/weights/a"))
      assert.strictEqual(DateTime.toEpochMillis(found.expires), Date.UTC(2026, 7, 1, 12))
    })
  )

  it.effect.each<[string, Service.Answer]>([
    ["a redirect to nowhere", { status: 302, text: "" }],
    ["a redirect to a file of this machine", { status: 302, text: "", headers: { location: "file:///etc/passwd" } }],
    ["a relative address", { status: 302, text: "", headers: { location: "/a" } }],
    ["no address", { json: { expires: "2026-08-01T12:00:00Z" } }],
    ["a number", { json: { url: 5 } }],
    ["a page", { text: "<html>" }]
  ])("refuses as the answer about an archive: %s", ([, answer]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        over(
          answering(() => answer),
          (rest) => rest.getCheckpointArchiveUrl("tinker://s:train:0/weights/a")
        )
      )
      assert.strictEqual(error.reason._tag, "BadResponse")
    })
  )

  it.effect("waits while the archive is being built, as told or half a minute at a time, and not for ever", () =>
    Effect.gen(function* () {
      const location = "http://files.test/a"
      const fake = answering((seen) =>
        seen.nth === 0
          ? Service.failing(503, "building")
          : seen.nth === 1
            ? Service.failing(503, "building", { "retry-after": "7" })
            : { status: 302, text: "", headers: { location } }
      )
      const fiber = yield* Effect.forkChild(
        over(fake, (rest) => rest.getCheckpointArchiveUrl("tinker://s:train:0/weights/a"))
      )
      yield* TestClock.adjust("36900 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("100 millis")
      assert.strictEqual(Redacted.value((yield* Fiber.join(fiber)).url), location)

      const never = answering(() => Service.failing(503, "building"))
      const waiting = yield* Effect.forkChild(
        Effect.flip(
          over(never, (rest) =>
            rest.getCheckpointArchiveUrl("tinker://s:train:0/weights/a", { buildLimit: "5 minutes" })
          )
        )
      )
      yield* TestClock.adjust("5 minutes")
      const error = yield* Fiber.join(waiting)
      assert.strictEqual(error.reason._tag, "ServerFailure")
      assert.isTrue(error.isRetryable)
      assert.strictEqual(asked(never).length, 11)
    })
  )

  it.effect("reads sessions and samplers, and books a session on a project", () =>
    Effect.gen(function* () {
      const fake = answering((seen) => {
        if (seen.path === "sessions") {
          const offset = Number(new URL(seen.url).searchParams.get("offset"))
          return { json: { sessions: Array.from({ length: offset === 0 ? 100 : 20 }, (_, i) => `s${offset + i}`) } }
        }
        if (seen.path === "sessions/s1")
          return { json: { training_run_ids: ["s1:train:0"], sampler_ids: ["s1:sample:0"] } }
        if (seen.path === "samplers/s1:sample:0")
          return { json: { sampler_id: "s1:sample:0", base_model: "org/base", model_path: null } }
        return { text: "" }
      })
      assert.strictEqual((yield* over(fake, (rest) => Stream.runCollect(rest.streamSessions()))).length, 120)
      assert.deepStrictEqual(yield* over(fake, (rest) => rest.getSession("s1", { accessScope: "accessible" })), {
        trainingRunIds: ["s1:train:0"],
        samplerIds: ["s1:sample:0"]
      })
      assert.deepStrictEqual(yield* over(fake, (rest) => rest.getSampler("s1:sample:0")), {
        samplerId: "s1:sample:0",
        baseModel: "org/base",
        modelPath: Option.none()
      })
      yield* over(fake, (rest) => rest.assignSessionProject("s1", "p1"))
      assert.deepStrictEqual(
        asked(fake).map((seen) => [seen.method, seen.url, seen.json]),
        [
          ["GET", "sessions?limit=100&offset=0&access_scope=owned", {}],
          ["GET", "sessions?limit=100&offset=100&access_scope=owned", {}],
          ["GET", "sessions/s1?access_scope=accessible", {}],
          ["GET", "samplers/s1:sample:0", {}],
          ["PUT", "sessions/s1/project", { project_id: "p1" }]
        ]
      )
    })
  )

  it.effect("waits for the trace of a session, five seconds at a time", () =>
    Effect.gen(function* () {
      const fake = answering((seen) =>
        seen.nth < 2 ? { json: { status: "pending" } } : { json: { status: "ready", url: "https://files.test/t" } }
      )
      const fiber = yield* Effect.forkChild(over(fake, (rest) => rest.exportSessionTrace("s1")))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(Redacted.value(yield* Fiber.join(fiber)), "https://files.test/t")
      assert.strictEqual(asked(fake).length, 3)
      for (const [answer, tag] of [
        [{ status: "failed", error: "too old" }, "ExportFailed"],
        [{ status: "ready" }, "BadResponse"],
        [{ status: "done" }, "BadResponse"]
      ] as const) {
        const wrong = answering(() => ({ json: answer }))
        const error = yield* Effect.flip(over(wrong, (rest) => rest.exportSessionTrace("s1")))
        assert.strictEqual(error.reason._tag, tag)
        if (tag === "ExportFailed") assert.include(error.message, "too old")
      }
      const never = answering(() => ({ json: { status: "pending" } }))
      const waiting = yield* Effect.forkChild(
        Effect.flip(over(never, (rest) => rest.exportSessionTrace("s1", { buildLimit: "1 minute" })))
      )
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(waiting)).reason._tag, "ExportFailed")
    })
  )

  it.effect("reads the audit log and the billing usage, kinds that it does not know too", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(Date.UTC(2026, 7, 20))
      const event = (event_info: Record<string, unknown>, more: Record<string, unknown> = {}) => ({
        bucket_start: "2026-08-01T10:00:00Z",
        bucket_end: "2026-08-01T11:00:00Z",
        event_info,
        ...more
      })
      const data = [
        event({ type: "training", token_count: 5 }, { base_model: "org/base", session_id: "s1", user_name: null }),
        event({ type: "sampling_prefill", cached: true, token_count: 6 }),
        event({ type: "sampling_sample", token_count: 7 }),
        event({ type: "checkpoint", count: 1 }),
        event({ type: "storage", gigabyte_hours: 0.5 }),
        event({ type: "moon_dust", grams: 3 })
      ]
      const fake = answering((seen) =>
        seen.path === "audit"
          ? {
              json: {
                entries: [{ timestamp: "2026-08-01T10:00:00Z", event: "delete", tinker_path: "tinker://r/weights/a" }]
              }
            }
          : { json: { data, sessions: { s1: { user_metadata: { a: "b" } }, s2: {} } } }
      )
      const log = yield* over(fake, (rest) => rest.getAuditLog({ eventType: "checkpoints", day: "2026-08-01" }))
      assert.deepStrictEqual(
        log.map(({ event, modelId, tinkerPath }) => [event, modelId, tinkerPath]),
        [["delete", Option.none(), Option.some("tinker://r/weights/a")]]
      )
      const usage = yield* over(fake, (rest) =>
        rest.getBillingUsage({ from: "2026-08-01T10:00:00Z", until: new Date(Date.UTC(2026, 7, 15, 10)) })
      )
      assert.deepStrictEqual(
        usage.events.map(({ info }) => info),
        [
          { _tag: "training", tokenCount: 5 },
          { _tag: "sampling_prefill", cached: true, tokenCount: 6 },
          { _tag: "sampling_sample", tokenCount: 7 },
          { _tag: "checkpoint", count: 1 },
          { _tag: "storage", gigabyteHours: 0.5 },
          { _tag: "other", raw: { type: "moon_dust", grams: 3 } }
        ]
      )
      assert.deepStrictEqual(usage.sessions, { s1: Option.some({ a: "b" }), s2: Option.none() })
      assert.deepStrictEqual(
        asked(fake).map((seen) => decodeURIComponent(seen.url)),
        [
          "audit?event_type=checkpoints&day=2026-08-01",
          "billing/usage/events?starting_on=2026-08-01T10:00:00Z&ending_before=2026-08-15T10:00:00Z"
        ]
      )
      const wrong = answering(() => ({ json: { data: [event({ type: "training", token_count: "5" })], sessions: {} } }))
      const error = yield* Effect.flip(
        over(wrong, (rest) => rest.getBillingUsage({ from: "2026-08-01T10:00:00Z", until: "2026-08-01T11:00:00Z" }))
      )
      assert.strictEqual(error.reason._tag, "BadResponse")
    })
  )

  it.effect("says whose token it holds, without a request of its own", () =>
    Effect.gen(function* () {
      const token = (claims: unknown) => `eyJh.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.s`
      const exchanging = (claims: unknown) =>
        Service.make((seen) =>
          seen.path === "client/config"
            ? { json: { pjwt_auth_enabled: true } }
            : seen.path === "auth/token"
              ? { json: { jwt: token(claims) } }
              : undefined
        )
      const fake = exchanging({ sub: "urn:u1", email: "a@b.test" })
      assert.deepStrictEqual(yield* over(fake, (rest) => rest.whoami()), {
        userUrn: "urn:u1",
        email: Option.some("a@b.test")
      })
      assert.deepStrictEqual(
        fake.seen.map((seen) => seen.path),
        ["client/config", "auth/token", "client/dynamic_config"]
      )
      const bare = yield* over(exchanging({ sub: "urn:u1", email: "" }), (rest) => rest.whoami())
      assert.deepStrictEqual(bare.email, Option.none())
      const plain = yield* Effect.flip(over(Service.make(), (rest) => rest.whoami()))
      assert.strictEqual(plain.reason._tag, "Unsupported")
      const given = (iss: string) =>
        Effect.flatMap(RestClient, (rest) => rest.whoami()).pipe(
          Effect.provide(Service.connect(Service.make(), { apiKey: token({ sub: "urn:u2", iss }) }))
        )
      assert.strictEqual((yield* given("passport-prod")).userUrn, "urn:u2")
      assert.strictEqual((yield* Effect.flip(given("somebody"))).reason._tag, "Unsupported")
    })
  )

  it.effect("takes options of the one call last: its deadline, its retries, its headers", () =>
    Effect.gen(function* () {
      const fake = answering(() => Service.failing(500))
      const error = yield* Effect.flip(
        over(fake, (rest) => rest.listCheckpoints("r", { retries: 0, headers: { "X-Team": "blue" } }))
      )
      assert.strictEqual(error.reason._tag, "ServerFailure")
      assert.strictEqual(asked(fake).length, 1)
      assert.strictEqual(fake.seen.at(-1)?.headers["x-team"], "blue")
      const fiber = yield* Effect.forkChild(
        Effect.exit(over(fake, (rest) => rest.getTrainingRun("r", { deadline: "3 seconds" })))
      )
      yield* TestClock.adjust("3 seconds")
      assert.isDefined(fiber.pollUnsafe())
      const healthy = answering(() => Service.failing(500))
      yield* Effect.flip(over(healthy, (rest) => rest.health()))
      assert.strictEqual(asked(healthy).length, 1)
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
        ["ttl", (rest) => rest.setCheckpointTtl("tinker://run/weights/a", "Infinity")],
        ["path", (rest) => rest.publishCheckpoint("tinker://run")],
        ["path", (rest) => rest.unpublishCheckpoint("http://run/weights/a")],
        ["path", (rest) => rest.getCheckpointArchiveUrl("tinker://run/weights/a/b")],
        ["path", (rest) => rest.getTrainingRunByPath("run")],
        ["path", (rest) => rest.getCheckpoint("run")],
        ["buildLimit", (rest) => rest.getCheckpointArchiveUrl("tinker://run/weights/a", { buildLimit: "Infinity" })],
        ["buildLimit", (rest) => rest.exportSessionTrace("s", { buildLimit: 0 })],
        ["samplerId", (rest) => rest.getSampler("a/b")],
        ["sessionId", (rest) => rest.getSession("..")],
        ["sessionId", (rest) => rest.assignSessionProject("", "p")],
        ["projectId", (rest) => rest.assignSessionProject("s", " ")],
        ["sessionId", (rest) => rest.exportSessionTrace("a?b")],
        ["limit", (rest) => rest.listSessions({ limit: 101 })],
        ["offset", (rest) => rest.listSessions({ offset: 0.5 })],
        ["offset", (rest) => rest.listUserCheckpoints({ offset: 2 ** 60 })],
        ["day", (rest) => rest.getAuditLog({ day: "yesterday" })],
        ["day", (rest) => rest.getAuditLog({ day: "2026-02-30" })],
        ["from", (rest) => rest.getBillingUsage({ from: "soon", until: 0 })],
        ["from", (rest) => rest.getBillingUsage({ from: -1, until: 3_600_000 })],
        ["until", (rest) => rest.getBillingUsage({ from: 0, until: 3_600_001 })],
        ["until", (rest) => rest.getBillingUsage({ from: 0, until: 0 })],
        ["until", (rest) => rest.getBillingUsage({ from: 0, until: 15 * 86_400_000 })],
        ["from", (rest) => rest.getBillingUsage({ from: 3_600_000, until: 7_200_000 })],
        ["options.deadline", (rest) => rest.getTrainingRun("r", { deadline: -1 })],
        ["options.retries", (rest) => rest.listCheckpoints("r", { retries: 1.5 })],
        ['options.headers["x-api-key"]', (rest) => rest.health({ headers: { "x-api-key": "tml-other" } })]
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

  const path = "tinker://s:train:0/weights/a"
  const reads: Record<string, (rest: RestClient["Service"]) => Effect.Effect<unknown, TinkerError>> = {
    getTrainingRun: (rest) => rest.getTrainingRun("r"),
    getTrainingRunByPath: (rest) => rest.getTrainingRunByPath(path),
    listTrainingRuns: (rest) => rest.listTrainingRuns(),
    listRunFlags: (rest) => rest.listRunFlags(),
    streamTrainingRuns: (rest) => Stream.runDrain(rest.streamTrainingRuns()),
    listCheckpoints: (rest) => rest.listCheckpoints("r"),
    listUserCheckpoints: (rest) => rest.listUserCheckpoints(),
    streamUserCheckpoints: (rest) => Stream.runDrain(rest.streamUserCheckpoints()),
    getCheckpoint: (rest) => rest.getCheckpoint(path),
    weightsInfo: (rest) => rest.weightsInfo(path),
    getCheckpointArchiveUrl: (rest) => rest.getCheckpointArchiveUrl(path),
    readCheckpointArchive: (rest) => rest.readCheckpointArchive(path, () => Effect.void),
    streamCheckpointArchive: (rest) => Stream.runDrain(rest.streamCheckpointArchive(path)),
    getSampler: (rest) => rest.getSampler("s"),
    getSession: (rest) => rest.getSession("s"),
    listSessions: (rest) => rest.listSessions(),
    streamSessions: (rest) => Stream.runDrain(rest.streamSessions()),
    exportSessionTrace: (rest) => rest.exportSessionTrace("s"),
    getAuditLog: (rest) => rest.getAuditLog(),
    getBillingUsage: (rest) => rest.getBillingUsage({ from: -3_600_000, until: 0 }),
    getStorageUsage: (rest) => rest.getStorageUsage(),
    getServerCapabilities: (rest) => rest.getServerCapabilities(),
    health: (rest) => rest.health()
  }
  const writes: Record<string, (rest: RestClient["Service"]) => Effect.Effect<unknown, TinkerError>> = {
    deleteCheckpoint: (rest) => rest.deleteCheckpoint(path),
    publishCheckpoint: (rest) => rest.publishCheckpoint(path),
    unpublishCheckpoint: (rest) => rest.unpublishCheckpoint(path),
    setCheckpointTtl: (rest) => rest.setCheckpointTtl(path, null),
    assignSessionProject: (rest) => rest.assignSessionProject("s", "p")
  }

  it.effect("has a call here for each of its members", () =>
    over(Service.make(), (rest) =>
      Effect.sync(() =>
        assert.deepStrictEqual(Object.keys({ ...reads, ...writes, whoami: 0 }).toSorted(), Object.keys(rest).toSorted())
      )
    )
  )

  const huge = '{"training_run_id":1e999,"cursor":{"offset":1e400,"limit":9e99,"total_count":-1}}'
  it.effect.each<[string, Service.Answer]>([
    ["null", { json: null }],
    ["a list", { json: [] }],
    ["a text", { json: Service.key }],
    ["an object without anything", { json: {} }],
    [
      "wrong types throughout",
      {
        json: {
          training_runs: {},
          checkpoints: "none",
          cursor: 1,
          sessions: 5,
          base_model: 1,
          url: [],
          status: 3,
          entries: 0,
          data: 0,
          supported_models: {},
          training_run_ids: "x",
          sampler_id: null
        }
      }
    ],
    ["numbers beyond all numbers", { text: huge, headers: { "content-type": "application/json" } }],
    ["JSON that was cut", { text: '{"training_runs": [{"train', headers: { "content-type": "application/json" } }],
    ["JSON without end", { text: `${"[".repeat(100_000)}`, headers: { "content-type": "application/json" } }],
    ["a page", { text: `<html>${Service.key}</html>`, headers: { "content-type": "text/html" } }],
    ["protobuf", { bytes: new Uint8Array([10, 3, 1, 2]), headers: { "content-type": "application/x-protobuf" } }],
    ["nothing", { text: "" }],
    ["10 MB of nonsense", { text: `${Service.key} `.repeat(500_000) }]
  ])("takes no answer for one that is %s", ([, answer]) =>
    Effect.gen(function* () {
      for (const [name, read] of Object.entries(reads)) {
        const fake = answering(() => answer)
        const error = yield* Effect.flip(over(fake, read))
        assert.strictEqual(error.reason._tag, "BadResponse", name)
        assert.isBelow(error.message.length, 1000)
        assert.notInclude(error.message + JSON.stringify(error) + String(error.stack), Service.key)
        assert.strictEqual(asked(fake).length, 1, name)
      }
    })
  )

  it.effect.each([400, 401, 403, 404, 409, 410, 413, 422, 425])("ends with a typed error, at once, for %i", (status) =>
    Effect.gen(function* () {
      for (const [name, call] of Object.entries({ ...reads, ...writes })) {
        const fake = answering(() => ({
          status,
          text: `<h1>${Service.key}</h1>${"x".repeat(status === 413 ? 10_000_000 : 1000)}`,
          headers: { "content-type": "text/html" }
        }))
        const error = yield* Effect.flip(over(fake, call))
        const expected =
          { 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict" }[status] ?? "BadRequest"
        assert.strictEqual(error.reason._tag, expected, name)
        assert.isBelow(error.message.length, 1000)
        assert.notInclude(error.message + JSON.stringify(error), Service.key)
        assert.strictEqual(asked(fake).length, 1, name)
      }
    })
  )

  it.effect.each<[string, Service.Answer]>([
    ["500", Service.failing(500)],
    ["429", Service.failing(429)],
    ["refused connections", Service.refused],
    ["silence", "silence"]
  ])("waits for %s no longer than the call may take", ([, answer]) =>
    Effect.gen(function* () {
      for (const [name, call] of Object.entries({ ...reads, ...writes })) {
        const fake = answering(() => answer)
        const fiber = yield* Effect.forkChild(
          Effect.flatMap(RestClient, call).pipe(
            Effect.provide(Layer.fresh(Service.connect(fake, { deadline: "20 seconds", timeout: "10 seconds" }))),
            Effect.exit
          )
        )
        for (let turn = 0; turn < 42; turn++) yield* TestClock.adjust("500 millis")
        const exit = fiber.pollUnsafe()
        assert.isDefined(exit, name)
        assert.isTrue(exit?._tag === "Success" && Exit.isFailure(exit.value), name)
      }
    })
  )

  it.effect("takes any answer of success for a change", () =>
    Effect.gen(function* () {
      for (const answer of [{ status: 204, bytes: new Uint8Array() }, { text: "<html>" }, { json: null }]) {
        for (const [name, call] of Object.entries(writes)) {
          // A 204 has no body at all.
          const fake = answering(() => ("status" in answer ? { status: 200, text: "" } : answer))
          yield* over(fake, call)
          assert.strictEqual(asked(fake).length, 1, name)
        }
      }
    })
  )
})
