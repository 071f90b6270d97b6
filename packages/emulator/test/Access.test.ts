import * as Json from "@tinkex/tinker/wire/Json"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as Api from "./api.ts"

const keys = { "tml-ann": "ann", "tml-bob": "bob" }

const as = (key: string) => (method: "GET" | "POST" | "PUT" | "DELETE", path: string, json?: unknown) =>
  Api.request(method, `/api/v1/${path}`, json === undefined ? { key } : { key, json })
const ann = as("tml-ann")
const bob = as("tml-bob")

const done = Effect.fnUntraced(function* (by: typeof ann, answer: Api.Answer) {
  const { body } = yield* Api.expectOk(answer)
  return (yield* by("POST", "retrieve_future", { request_id: body.request_id })).body
})

const newSession = (by: typeof ann) =>
  Effect.map(by("POST", "create_session", { tags: [], sdk_version: "x" }), ({ body }) => body.session_id ?? "")

const newModel = Effect.fnUntraced(function* (by: typeof ann, session: string, n = 0) {
  return (yield* done(by, yield* by("POST", "create_model", Api.modelBody(session, n)))).model_id ?? ""
})

const save = Effect.fnUntraced(function* (by: typeof ann, model: string, seqId: number, name: string) {
  return (yield* done(by, yield* by("POST", "save_weights", { model_id: model, seq_id: seqId, path: name }))).path ?? ""
})

describe("users", () => {
  it.effect("see and use what is theirs, and nothing of another's", () =>
    Effect.gen(function* () {
      const session = yield* newSession(ann)
      const model = yield* newModel(ann, session)
      const path = yield* save(ann, model, 1, "mine")
      const sampling = { session_id: session, sampling_session_seq_id: 0, base_model: "tiny/byte-lm-16" }
      const sampler = (yield* ann("POST", "create_sampling_session", sampling)).body.sampling_session_id ?? ""
      const pending = yield* ann("POST", "optim_step", { model_id: model, seq_id: 2, adam_params: {} })

      const statuses = Effect.forEach(
        [
          bob("POST", "session_heartbeat", { session_id: session }),
          bob("POST", "create_model", Api.modelBody(session, 5)),
          bob("POST", "optim_step", { model_id: model, seq_id: 3, adam_params: {} }),
          bob("POST", "unload_model", { model_id: model }),
          bob("POST", "retrieve_future", { request_id: pending.body.request_id }),
          bob("POST", "weights_info", { tinker_path: path }),
          bob("PUT", `sessions/${session}/project`, { project_id: "p" }),
          bob("GET", `samplers/${sampler}`),
          bob("GET", `training_runs/${model}`),
          bob("GET", `training_runs/${model}/checkpoints`),
          bob("DELETE", `training_runs/${model}/checkpoints/weights/mine`),
          bob("PUT", `training_runs/${model}/checkpoints/weights/mine/ttl`, { ttl_seconds: 5 }),
          bob("POST", `training_runs/${model}/checkpoints/weights/mine/publish`, ""),
          bob("GET", `sessions/${session}`)
        ],
        (effect) => Effect.map(effect, ({ status }) => status)
      )
      assert.deepStrictEqual(yield* statuses, [403, 403, 403, 403, 403, 403, 403, 403, 404, 404, 404, 404, 404, 404])
      assert.deepStrictEqual((yield* bob("GET", "sessions")).body.sessions, [])
      assert.deepStrictEqual((yield* bob("GET", "training_runs")).body.training_runs, [])
      assert.deepStrictEqual((yield* bob("GET", "checkpoints")).body.checkpoints, [])
      assert.strictEqual((yield* bob("GET", "training_runs?access_scope=accessible")).body.training_runs?.length, 1)
      assert.strictEqual((yield* bob("GET", `training_runs/${model}?access_scope=accessible`)).body.model_owner, "ann")
      assert.strictEqual((yield* bob("GET", "training_runs?access_scope=all")).status, 422)
      assert.strictEqual((yield* ann("GET", `training_runs/${model}`)).status, 200)
      assert.strictEqual((yield* as("tml-eve")("GET", "training_runs")).status, 403)
    }).pipe(Api.provided({ apiKeys: keys }))
  )

  it.effect("a published checkpoint is open to all, an access token opens one that is not", () =>
    Effect.gen(function* () {
      const model = yield* newModel(ann, yield* newSession(ann))
      const path = yield* save(ann, model, 1, "mine")
      const checkpoint = `training_runs/${model}/checkpoints/weights/mine`
      const session = yield* newSession(bob)
      const load = Effect.fnUntraced(function* (n: number, more: Record<string, unknown> = {}) {
        const copy = yield* newModel(bob, session, n)
        return yield* bob("POST", "load_weights", { model_id: copy, seq_id: 1, path, optimizer: true, ...more })
      })
      assert.strictEqual((yield* load(0)).status, 403)
      assert.strictEqual((yield* load(1, { weights_access_token: "tml-bob" })).status, 403)
      assert.isUndefined((yield* done(bob, yield* load(2, { weights_access_token: "tml-ann" }))).error)

      assert.strictEqual((yield* ann("DELETE", `${checkpoint}/publish`)).status, 409)
      assert.strictEqual((yield* ann("POST", `${checkpoint}/publish`, "")).status, 200)
      const twice = yield* ann("POST", `${checkpoint}/publish`, "")
      assert.deepStrictEqual([twice.status, twice.headers["x-should-retry"]], [409, "false"])
      assert.isTrue((yield* ann("GET", "checkpoints")).body.checkpoints?.[0]?.public)
      assert.isUndefined((yield* done(bob, yield* load(3))).error)
      assert.strictEqual((yield* bob("POST", "weights_info", { tinker_path: path })).body.lora_rank, 4)
      assert.strictEqual((yield* bob("DELETE", checkpoint)).status, 404)
      assert.strictEqual((yield* ann("DELETE", `${checkpoint}/publish`)).status, 200)
      assert.strictEqual((yield* load(4)).status, 403)
      assert.strictEqual((yield* ann("POST", `training_runs/${model}/checkpoints/weights/none/publish`)).status, 404)
      assert.strictEqual((yield* ann("POST", `training_runs/${model}/checkpoints/other/mine/publish`)).status, 400)
    }).pipe(Api.provided({ apiKeys: keys }))
  )
})

describe("tokens", () => {
  const claims = (jwt: string): unknown => JSON.parse(Buffer.from(jwt.split(".")[1] ?? "", "base64url").toString())

  it.effect("a key is exchanged for a token, which alone opens everything else until it ends", () =>
    Effect.gen(function* () {
      const config = yield* ann("POST", "client/config", { sdk_version: "x" })
      assert.isTrue((yield* Schema.decodeUnknownEffect(Json.ClientConfig)(config.body)).pjwt_auth_enabled)
      assert.strictEqual((yield* ann("GET", "training_runs")).status, 401)
      const { jwt = "" } = (yield* ann("POST", "auth/token", {})).body
      assert.deepStrictEqual(claims(jwt), {
        iss: "passport-emulator",
        sub: "tml:user:ann",
        org_id: "emulator",
        email: "ann@emulator.invalid",
        iat: 0,
        exp: 600
      })
      const withToken = as(jwt)
      const model = yield* newModel(withToken, yield* newSession(withToken))
      assert.strictEqual((yield* withToken("GET", `training_runs/${model}`)).body.model_owner, "ann")
      const forged = `${jwt.slice(0, jwt.lastIndexOf(".") + 1)}${"A".repeat(43)}`
      for (const bad of [forged, "eyJ", "eyJ.eyJ.x", "tml-eve"]) {
        assert.include([401, 403], (yield* as(bad)("GET", "training_runs")).status, bad)
      }
      assert.strictEqual((yield* as("tml-eve")("POST", "auth/token", {})).status, 403)

      yield* TestClock.adjust("599 seconds")
      assert.strictEqual((yield* withToken("GET", "training_runs")).status, 200)
      const renewed = (yield* withToken("POST", "auth/token", {})).body.jwt ?? ""
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* withToken("GET", "training_runs")).status, 401)
      assert.strictEqual((yield* as(renewed)("GET", "training_runs")).status, 200)
    }).pipe(Api.provided({ apiKeys: keys, tokenExchange: true, tokenLifetime: "10 minutes" }))
  )

  it.effect("without the exchange there is none", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* ann("POST", "auth/token", {})).status, 404)
    }).pipe(Api.provided())
  )
})

describe("sessions and projects", () => {
  it.effect("are listed newest first in pages, and a project is given to a session with its runs", () =>
    Effect.gen(function* () {
      const sessions = yield* Effect.forEach([0, 1, 2], () => newSession(ann))
      const listed = (query: string) =>
        Effect.map(ann("GET", `sessions${query}`), ({ body }) => body.sessions?.map((id) => sessions.indexOf(id)))
      assert.deepStrictEqual(yield* listed(""), [2, 1, 0])
      assert.deepStrictEqual(yield* listed("?limit=1&offset=1"), [1])
      assert.deepStrictEqual(yield* listed("?limit=5&offset=9"), [])

      const [session = ""] = sessions
      const model = yield* newModel(ann, session)
      yield* newModel(ann, sessions[1] ?? "")
      const inProject = (project: string) =>
        Effect.map(ann("GET", `training_runs?project_id=${project}`), ({ body }) =>
          body.training_runs?.map((run) => run.training_run_id)
        )
      assert.deepStrictEqual(yield* inProject("p"), [])
      assert.strictEqual((yield* ann("PUT", `sessions/${session}/project`, { project_id: "p" })).status, 200)
      assert.deepStrictEqual(yield* inProject("p"), [model])
      const second = yield* newModel(ann, session, 1)
      assert.sameMembers([...((yield* inProject("p")) ?? [])], [model, second])
      assert.strictEqual((yield* ann("PUT", `sessions/${session}/project`, {})).status, 400)
      assert.strictEqual((yield* ann("PUT", "sessions/none/project", { project_id: "p" })).status, 404)
    }).pipe(Api.provided())
  )
})
