// Written as by somebody without Effect; only the fake service needs it.
import { afterEach, assert, describe, expectTypeOf, it } from "vitest"
import { NodeServices } from "@effect/platform-node"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type Client, connect, type ConnectOptions, TinkerError } from "@tinkex/tinker/promise"
import * as Archive from "./support/archive.ts"
import * as Service from "./support/fakeService.ts"

const open: Array<Client> = []
const folders: Array<string> = []
afterEach(async () => {
  for (const client of open.splice(0)) await client.close()
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})

const over = async (fake: Service.Fake, options: ConnectOptions = {}) => {
  const client = await connect({ apiKey: Service.key, baseUrl: "http://service.test", http: fake.layer, ...options })
  open.push(client)
  return client
}

const refusal = async (promise: PromiseLike<unknown>): Promise<TinkerError> => {
  try {
    await promise
  } catch (error) {
    assert.instanceOf(error, TinkerError)
    return error as TinkerError
  }
  return assert.fail("it did not reject")
}

const run = (id: number) => ({
  training_run_id: `s:train:${id}`,
  base_model: "org/base",
  model_owner: "u",
  is_lora: true,
  corrupted: id === 2,
  lora_rank: id === 1 ? null : 8,
  last_request_time: id === 1 ? "yesterday" : "2026-08-01T10:00:00Z"
})

const runs = (total: number) =>
  Service.make((seen) => {
    if (seen.path !== "training_runs") return undefined
    const offset = Number(new URL(seen.url).searchParams.get("offset"))
    const page = Array.from({ length: Math.min(100, total - offset) }, (_, i) => run(offset + i))
    return { json: { training_runs: page, cursor: { offset, limit: 100, total_count: total } } }
  })

describe("connect", () => {
  it("rejects with a typed error for a setting that cannot work", async () => {
    const error = await refusal(connect({ apiKey: "sk-1", http: Service.make().layer }))
    assert.strictEqual(error.reason._tag, "InvalidConfig")
    assert.strictEqual((await refusal(connect({ http: Service.make().layer }))).reason._tag, "InvalidConfig")
  })

  it("sends nothing by itself, and closes its sessions' heartbeats with it", async () => {
    const fake = Service.make()
    {
      await using client = await over(fake)
      assert.deepStrictEqual(fake.seen, [])
      assert.strictEqual(await client.session(), "s0")
    }
    const error = await refusal((await over(Service.make(() => Service.failing(404)))).session())
    assert.strictEqual(error.reason._tag, "NotFound")
  })
})

describe("rest", () => {
  it("gives plain values: no Option, a Date for a time, and a text that is no time as it is", async () => {
    const client = await over(runs(3))
    const { cursor, runs: page } = await client.rest.listTrainingRuns({ limit: 3 })
    assert.deepStrictEqual(cursor, { offset: 0, limit: 100, totalCount: 3 })
    const [first, second] = page
    assert.deepStrictEqual([first?.loraRank, second?.loraRank, first?.lastCheckpoint], [8, undefined, undefined])
    assert.deepStrictEqual(first?.lastRequestTime, new Date(Date.UTC(2026, 7, 1, 10)))
    assert.deepInclude(second?.lastRequestTime, { raw: "yesterday" })
    expectTypeOf(first?.loraRank).toEqualTypeOf<number | undefined>()
    expectTypeOf(client.rest.deleteCheckpoint).returns.toEqualTypeOf<Promise<void>>()
    expectTypeOf(client.rest.getCheckpointArchiveUrl).returns.resolves.toEqualTypeOf<{
      readonly url: string
      readonly expires: Date
    }>()
  })

  it("gives lists as async iterables, page by page, and stops asking when the loop is left", async () => {
    const fake = runs(250)
    const client = await over(fake)
    const ids: Array<string> = []
    for await (const one of client.rest.streamTrainingRuns()) ids.push(one.trainingRunId)
    assert.strictEqual(ids.length, 250)
    assert.strictEqual(fake.of("training_runs").length, 3)
    for await (const one of client.rest.streamTrainingRuns({ corrupted: true })) {
      assert.strictEqual(one.trainingRunId, "s:train:2")
      break
    }
    assert.strictEqual(fake.of("training_runs").length, 4)
  })

  it("rejects, and ends its iterables, with typed errors", async () => {
    const client = await over(
      Service.make((seen) => (seen.path.startsWith("client/") ? undefined : Service.failing(403)))
    )
    const error = await refusal(client.rest.getTrainingRun("r"))
    assert.strictEqual(error.reason._tag, "Forbidden")
    assert.isFalse(error.isRetryable)
    const listing = (async () => {
      for await (const one of client.rest.streamTrainingRuns()) assert.fail(one.trainingRunId)
    })()
    assert.strictEqual((await refusal(listing)).reason._tag, "Forbidden")
    assert.strictEqual((await refusal(client.rest.getTrainingRun("a/b"))).reason._tag, "InvalidInput")
  })

  it("is stopped by a signal, before and while it runs, with the signal's reason", async () => {
    const fake = Service.make((seen) => (seen.path.startsWith("client/") ? undefined : "silence"))
    const client = await over(fake)
    const reason = new Error("enough")
    const before = await client.rest
      .getTrainingRun("r", { signal: AbortSignal.abort(reason) })
      .catch((error: unknown) => error)
    assert.strictEqual(before, reason)
    assert.deepStrictEqual(fake.of("training_runs/r"), [])
    const controller = new AbortController()
    const waiting = client.rest.getTrainingRun("r", { signal: controller.signal }).catch((error: unknown) => error)
    while (fake.of("training_runs/r").length === 0) await new Promise((resolve) => setImmediate(resolve))
    controller.abort(reason)
    assert.strictEqual(await waiting, reason)
    const listing = new AbortController()
    const left = (async () => {
      for await (const one of client.rest.streamSessions({ signal: listing.signal })) assert.fail(one)
    })().catch((error: unknown) => error)
    while (fake.of("sessions").length === 0) await new Promise((resolve) => setImmediate(resolve))
    listing.abort(reason)
    assert.strictEqual(await left, reason)
  })
})

describe("a training client", () => {
  const data = [Service.datum(1, 2, 3)]

  it("takes operations in the order in which they are called, awaited or not", async () => {
    const fake = Service.make()
    const client = await (await over(fake)).createLoraTrainingClient({ baseModel: "org/base" })
    const pass = client.forwardBackward(data, { loss: "cross_entropy" })
    const update = client.optimStep({ learningRate: 1e-4 })
    const saved = client.saveState("a")
    assert.deepStrictEqual((await saved).path, "tinker://run/weights/3")
    assert.deepStrictEqual((await update).metrics, { grad_norm: 2 })
    assert.deepStrictEqual((await pass).metrics, { "loss:sum": 1 })
    assert.deepStrictEqual(await pass.accepted(), ["forward_backward:1"])
    const states: Array<string> = []
    for await (const state of pass.queueState()) states.push(state.state)
    assert.deepStrictEqual(states, ["active"])
    const order = fake.seen
      .map(({ path }) => path)
      .filter((path) => /forward_backward|optim_step|save_weights/.test(path))
    assert.deepStrictEqual(order, ["forward_backward", "optim_step", "save_weights"])
    const info = await client.info()
    expectTypeOf(info.tokenizerId).toEqualTypeOf<string | undefined>()
    assert.deepStrictEqual([info.tokenizerId, info.arch], ["org/tok", undefined])
    await client.close()
    assert.strictEqual((await refusal(client.optimStep({ learningRate: 1 }))).reason._tag, "Fenced")
  })

  it("says plainly what it has loaded", async () => {
    const path = "tinker://run/weights/a"
    const fake = Service.make((seen) =>
      String(seen.json.request_id).startsWith("load_weights") ? { json: { path } } : undefined
    )
    const client = await (await over(fake)).createLoraTrainingClient({ baseModel: "org/base" })
    const loaded = await client.loadState(path, { optimizer: true })
    expectTypeOf(loaded.path).toEqualTypeOf<string | undefined>()
    assert.strictEqual(loaded.path, path)
  })

  it("keeps that order while a large batch is being written", async () => {
    const fake = Service.make()
    const client = await (await over(fake)).createLoraTrainingClient({ baseModel: "org/base" })
    const large = Array.from({ length: 60 }, () => Service.datum(...Array.from({ length: 20_000 }, (_, i) => i)))
    const custom = refusal(client.forwardBackwardCustom(large, () => assert.fail("it has no logprobs to go by")))
    const pass = client.forwardBackward(large, { loss: "cross_entropy" })
    const update = client.optimStep({ learningRate: 1e-4 })
    const chunks = (await pass.accepted()).length
    const { grad_norm } = (await update).metrics
    assert.isAbove(chunks, 1)
    // The forward pass of the custom loss is cut in as many.
    assert.strictEqual(grad_norm, 2 * chunks + 1)
    assert.strictEqual((await custom).reason._tag, "BadResponse")
  })

  it("lets nothing reject unheard", async () => {
    const heard: Array<unknown> = []
    const listen = (error: unknown) => heard.push(error)
    process.on("unhandledRejection", listen)
    try {
      const fake = Service.make((seen) => (seen.path === "optim_step" ? Service.failing(400) : undefined))
      const client = await (await over(fake)).createLoraTrainingClient({ baseModel: "org/base" })
      client.optimStep({ learningRate: 1 })
      client.optimStep({ learningRate: Number.NaN })
      assert.strictEqual((await client.failure()).reason._tag, "SubmissionRefused")
      for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
      assert.deepStrictEqual(heard, [])
    } finally {
      process.off("unhandledRejection", listen)
    }
  })

  it("stops a wait at a signal and leaves the operation as it is", async () => {
    let hold = true
    const fake = Service.make((seen) =>
      hold && seen.path === "retrieve_future" && String(seen.json.request_id).startsWith("optim_step")
        ? { json: { type: "try_again", queue_state: "paused_capacity" } }
        : undefined
    )
    const client = await (await over(fake)).createLoraTrainingClient({ baseModel: "org/base" })
    const update = client.optimStep({ learningRate: 1e-4 })
    const controller = new AbortController()
    const waiting = update.result({ signal: controller.signal }).catch((error: unknown) => error)
    for await (const { state } of update.queueState()) if (state === "paused_capacity") break
    controller.abort(new Error("enough"))
    assert.deepStrictEqual(await waiting, new Error("enough"))
    hold = false
    assert.deepStrictEqual((await update).metrics, { grad_norm: 1 })
  })
})

describe("downloadCheckpoint", () => {
  it("brings a checkpoint into a folder, and says plainly what is in it", async () => {
    const folder = mkdtempSync(join(tmpdir(), "zz-promise-"))
    folders.push(folder)
    const { Effect } = await import("effect")
    const file = await Effect.runPromise(Archive.archive())
    const place = Archive.withFile(file, () => ({}))
    const client = await over(place.fake, { http: place.layer, files: NodeServices.layer })
    const contents = await client.downloadCheckpoint("tinker://s:train:0/weights/a", join(folder, "a"))
    assert.deepStrictEqual([contents.rank, contents.baseModel, contents.tensors.size], [2, "org/base", 2])
    assert.include(readdirSync(join(folder, "a")), "adapter_config.json")
    const again = await refusal(client.downloadCheckpoint("tinker://s:train:0/weights/a", join(folder, "a")))
    assert.strictEqual(again.reason._tag, "LocalFile")
  })
})
