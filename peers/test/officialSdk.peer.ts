/**
 * The official Python SDK drives the emulator through its public surface, in the newest version and in the one that the wire
 * was described from, and is compared with our SDK on the same server: the same data and the same seed give the same bits.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { NodeHttpClient } from "@effect/platform-node"
import { Emulator } from "@tinkex/emulator"
import { CustomLoss, Datum, ModelInput, ServiceClient, TensorData, Tinker, type TrainingClient } from "@tinkex/tinker"
import { Effect, Layer, ManagedRuntime } from "effect"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { environment, type EnvironmentName, pinned } from "../environments.ts"
import type { Cases, Walked } from "./cases.ts"
import { command, drive, type Seen } from "./officialSdk.ts"

const model = "tiny/byte-lm-16"
const texts = ["the quick brown fox", "jumps over"]
const bytes = (text: string) => Array.from(new TextEncoder().encode(text))

const datum = (text: string, inputs: Record<string, ReadonlyArray<number>> = {}): Datum.Datum => {
  const tokens = bytes(text)
  const tensors = Object.entries(inputs).map(([key, values]) => [key, TensorData.float32(Float32Array.from(values))])
  return {
    modelInput: ModelInput.fromTokens(tokens.slice(0, -1)),
    lossFnInputs: { target_tokens: TensorData.int64(tokens.slice(1)), ...Object.fromEntries(tensors) }
  }
}

const weighted = (text: string) =>
  datum(text, {
    weights: bytes(text)
      .slice(1)
      .map(() => 1)
  })
const judged = (text: string) =>
  datum(text, {
    logprobs: bytes(text)
      .slice(1)
      .map((_, i) => -5.5 + 0.125 * (i % 4)),
    advantages: bytes(text)
      .slice(1)
      .map((_, i) => (i % 3 === 0 ? -1 : 1) * (0.5 + 0.25 * (i % 2)))
  })

/** The losses of `LOSSES` in the driver. */
const losses: ReadonlyArray<readonly [name: string, lossConfig?: Readonly<Record<string, number>>]> = [
  ["cross_entropy"],
  ["importance_sampling"],
  ["ppo", { clip_low_threshold: 0.8, clip_high_threshold: 1.2 }],
  ["cispo", { clip_low_threshold: 0.5, clip_high_threshold: 2 }],
  ["dro", { beta: 0.0625 }]
]

/** What a loss comes to for log-probabilities, as the service documents it. */
const documented = (name: string, logprobs: ReadonlyArray<ReadonlyArray<number>>): number => {
  const clip = (ratio: number, low: number, high: number) => Math.min(Math.max(ratio, low), high)
  const token = (p: number, i: number): number => {
    const q = -5.5 + 0.125 * (i % 4)
    const advantage = (i % 3 === 0 ? -1 : 1) * (0.5 + 0.25 * (i % 2))
    const ratio = Math.exp(p - q)
    switch (name) {
      case "cross_entropy":
        return -p
      case "importance_sampling":
        return -ratio * advantage
      case "ppo":
        return -Math.min(ratio * advantage, clip(ratio, 0.8, 1.2) * advantage)
      case "cispo":
        return -clip(ratio, 0.5, 2) * p * advantage
      default:
        return -(p * advantage - 0.5 * 0.0625 * (p - q) ** 2)
    }
  }
  return logprobs.flatMap((row) => row.map(token)).reduce((sum, one) => sum + one, 0)
}

/** The pages of a list make the list, and each cursor says where its page stands and how much there is. */
const inPages = ({ pages, past, whole }: Walked, limit: number, cursors: "cursors" | "no cursor" = "cursors") => {
  const cursor = (offset: number) => (cursors === "cursors" ? { offset, limit, total_count: whole.length } : null)
  assert.isAbove(whole.length, limit)
  assert.strictEqual(new Set(whole).size, whole.length)
  assert.deepStrictEqual(
    pages,
    Array.from({ length: Math.floor(whole.length / limit) + 1 }, (_, i) => ({
      names: whole.slice(i * limit, (i + 1) * limit),
      cursor: cursor(i * limit)
    }))
  )
  assert.deepStrictEqual(past, { names: [], cursor: cursor(10_000) })
}

const server = (options: Parameters<typeof Emulator.layer>[0] = {}) =>
  ManagedRuntime.make(
    Layer.unwrap(
      Effect.map(Emulator, ({ url }) =>
        Tinker.layer({ apiKey: "tml-peer", baseUrl: url }).pipe(Layer.provide(NodeHttpClient.layerUndici))
      )
    ).pipe(Layer.provideMerge(Emulator.layer({ apiKeys: { "tml-peer": "peer" }, tokenExchange: true, ...options })))
  )

const create = Effect.flatMap(ServiceClient, (service) =>
  service.createLoraTrainingClient({ baseModel: model, rank: 4, seed: 7 })
)

const outputs = ({ lossFnOutputs, lossFnOutputType, metrics }: TrainingClient.ForwardBackwardOutput) => ({
  type: lossFnOutputType,
  metrics,
  logprobs: lossFnOutputs.map(({ logprobs }) => Array.from(logprobs?.data ?? [], Number)),
  shapes: lossFnOutputs.map(({ logprobs }) => logprobs?.shape)
})

const forward = (client: TrainingClient.TrainingClient) =>
  client.forward(texts.map(weighted), { loss: "cross_entropy" }).pipe(
    Effect.flatMap((future) => future.result),
    Effect.map((result) => outputs(result).logprobs)
  )

const withOurs = Effect.gen(function* () {
  const client = yield* create
  const seen: Record<string, unknown> = {}
  for (const [name, lossConfig] of losses) {
    const data = texts.map(name === "cross_entropy" ? weighted : judged)
    const before = yield* client.forward(data, { loss: name, lossConfig })
    const pass = yield* client.forwardBackward(data, { loss: name, lossConfig })
    const adam = { learningRate: 0.01, beta1: 0.8, beta2: 0.9, eps: 1e-8, weightDecay: 0.01, gradClipNorm: 1 }
    const update = yield* client.optimStep(adam)
    const [first, second] = [outputs(yield* before.result), outputs(yield* pass.result)]
    seen[name] = { forward: first, backward: second, update: (yield* update.result).metrics }
  }
  return { losses: seen, after: yield* forward(client) }
})

const describePeer = (name: EnvironmentName, api: "0.25" | "0.38") => {
  const env = environment(name)
  const version = pinned(name, "tinker")
  if (env._tag === "Missing") {
    describe.skip(`the official Python SDK ${version}: ${env.reason}`)
    return
  }
  describe(`the official Python SDK ${version}`, () => {
    const runtime = server({ api })
    let url = ""
    let seen: ReadonlyMap<string, Seen> = new Map()

    beforeAll(async () => {
      url = (await runtime.runPromise(Emulator)).url
      seen = new Map([...(await drive(env, url)), ...(await drive(env, url, ["custom_loss"], { standIn: true }))])
    })
    afterAll(() => runtime.dispose())

    const saw = <Name extends keyof Cases>(name: Name): Cases[Name] => {
      const one = seen.get(name)
      assert.strictEqual(one?.error, undefined, `${name} in Python`)
      assert.isDefined(one, `${name} did not run`)
      return one?.saw as Cases[Name] // the driver is ours; a test that reads what is not there fails by its value
    }
    const archive = () => {
      const one = saw("archive")
      return "absent" in one ? undefined : one
    }

    it("reads the server's capabilities", () => assert.include(saw("capabilities"), model))

    it("creates a model and reads what the server says of it", () => {
      const { lora, model_id, name, rank } = saw("model")
      assert.match(model_id, /^.+:train:0$/)
      assert.deepStrictEqual([name, rank, lora], [model, 4, true])
    })

    it("computes every loss to the bit as our SDK does, and so do the steps that follow", async () => {
      const ours = await runtime.runPromise(Effect.scoped(withOurs))
      const theirs = saw("losses")
      for (const [name] of losses) assert.deepStrictEqual(ours.losses[name], theirs.losses[name], name)
      assert.deepStrictEqual(ours.after, theirs.after)
    })

    it("computes every loss as it is documented", () => {
      for (const [name, { backward, forward: only }] of Object.entries(saw("losses").losses)) {
        const expected = documented(name, backward.logprobs)
        assert.approximately(backward.metrics["loss:sum"] ?? 0, expected, 1e-4 * Math.max(1, Math.abs(expected)), name)
        assert.deepStrictEqual(only, backward, name)
      }
    })

    it("trains on several weighted targets for each position, dense or as sparse rows", () => {
      const { dense, sparse } = saw("distillation")
      assert.deepStrictEqual(dense.shapes, [[5, 8]])
      assert.strictEqual(dense.metrics["loss:sum"], sparse.metrics["loss:sum"])
      assert.isAbove(dense.metrics["loss:sum"] ?? 0, 0)
    })

    it("gets a batch that was cut into chunks back as one result", async () => {
      const { count, first, last, metrics } = saw("chunks")
      assert.strictEqual(count, 1100)
      const ours = await runtime.runPromise(
        Effect.gen(function* () {
          const client = yield* create
          const data = Array.from({ length: 1100 }, (_, i) => weighted(`line ${String(i).padStart(4, "0")}`))
          return outputs(yield* (yield* client.forwardBackward(data, { loss: "cross_entropy" })).result)
        }).pipe(Effect.scoped)
      )
      assert.deepStrictEqual([ours.logprobs.at(0), ours.logprobs.at(-1), ours.metrics], [first, last, metrics])
    })

    it("saves, and loads with the optimizer and without it", () => {
      const state = saw("state")
      assert.match(state.path, /^tinker:\/\/.+:train:0\/weights\/two-steps$/)
      for (const which of ["full", "weights", "loaded", "loaded_weights"] as const)
        assert.deepStrictEqual(state[which], state.saved)
      assert.deepStrictEqual(state.full_next, state.saved_next)
      assert.notDeepEqual(state.weights_next, state.saved_next)
    })

    it("overwrites a checkpoint where it says so", () =>
      assert.deepStrictEqual(saw("overwrite"), { same: true, loads: true }))

    it("samples by temperature, seed, top-k, top-p and stop rules", () => {
      const sampling = saw("sampling")
      assert.match(sampling.path, /:train:0\/sampler_weights\/sampler$/)
      assert.strictEqual(sampling.base_model, model)
      const [greedy] = sampling.greedy
      assert.isDefined(greedy)
      assert.strictEqual(greedy.tokens.length, 8)
      assert.strictEqual(greedy.stop, "length")
      assert.deepStrictEqual(sampling.again, sampling.greedy)
      assert.deepStrictEqual(sampling.seeded[0], sampling.seeded[1])
      assert.strictEqual(new Set(sampling.seeded[0]?.map((one) => JSON.stringify(one))).size, 3)
      for (const which of ["top_k", "top_p"] as const) assert.deepStrictEqual(sampling[which][0]?.tokens, greedy.tokens)
      assert.strictEqual(sampling.stop_token[0]?.stop, "stop")
      assert.isAtMost(sampling.stop_token[0]?.tokens.length ?? 9, 1)
      assert.strictEqual(sampling.stop_text?.[0]?.stop ?? "stop", "stop")
      assert.strictEqual(sampling.many, 1)
    })

    it("gets log-probabilities of prompts, the likeliest tokens among them", () => {
      const { computed, prompt_logprobs, topk } = saw("sampling")
      assert.strictEqual(prompt_logprobs.length, 9)
      assert.isNull(prompt_logprobs[0])
      assert.deepStrictEqual(computed, prompt_logprobs)
      assert.strictEqual(topk.length, 9)
      assert.isNull(topk[0])
      for (const [at, row] of topk.slice(1).entries()) {
        const likeliest = row?.map(([, logprob]) => logprob) ?? []
        assert.strictEqual(likeliest.length, 3)
        assert.deepStrictEqual(
          likeliest,
          likeliest.toSorted((a, b) => b - a)
        )
        const own = row?.find(([token]) => token === bytes("the quick")[at + 1])
        if (own !== undefined) assert.strictEqual(own[1], prompt_logprobs[at + 1])
      }
    })

    it("samples to the bit what our SDK samples from the same weights with the same seed", async () => {
      const { greedy, path, prompt_logprobs, seeded } = saw("sampling")
      const prompt = ModelInput.fromTokens(bytes("the quick"))
      const [first, three, logprobs] = await runtime.runPromise(
        Effect.gen(function* () {
          const service = yield* ServiceClient
          const sampler = yield* service.createSamplingClient({ modelPath: path })
          const settings = { maxTokens: 8, temperature: 1, seed: 11 }
          return [
            yield* sampler.sample(prompt, { ...settings, temperature: 0, seed: 1 }),
            yield* sampler.sample(prompt, { ...settings, numSamples: 3 }),
            yield* sampler.computeLogprobs(prompt)
          ] as const
        })
      )
      const same = (ours: typeof first, theirs: typeof greedy | undefined) =>
        assert.deepStrictEqual(
          ours.sequences.map(({ logprobs, stopReason, tokens }) => ({
            stop: stopReason,
            tokens: Array.from(tokens),
            logprobs: Array.from(logprobs ?? [])
          })),
          theirs
        )
      same(first, greedy)
      same(three, seeded[0])
      assert.deepStrictEqual(
        Array.from(logprobs, (one) => one ?? null),
        prompt_logprobs
      )
    })

    it("samples from a base model and from weights that are saved nowhere", () => {
      const samplers = saw("samplers")
      assert.deepStrictEqual(samplers.fresh, samplers.base)
      assert.notDeepEqual(samplers.trained, samplers.base)
      assert.strictEqual(samplers.sampler?.base_model ?? model, model)
    })

    it("computes a custom loss in two passes, to the bit as ours", async () => {
      const { after, metrics } = saw("custom_loss")
      const ours = await runtime.runPromise(
        Effect.gen(function* () {
          const client = yield* create
          const squares = CustomLoss.perToken((logprob) => ({ loss: -logprob * logprob, slope: -2 * logprob }))
          const data = texts.map((text) => datum(text))
          const pass = yield* client.forwardBackwardCustom(data, squares)
          const update = yield* client.optimStep({ learningRate: 0.01 })
          yield* update.result
          return { loss: (yield* pass.result).loss, after: yield* forward(client) }
        }).pipe(Effect.scoped)
      )
      assert.approximately(ours.loss, metrics["squares"] ?? 0, 1e-3) // theirs is a sum of float32
      assert.deepStrictEqual(ours.after, after)
    })

    it("lists and reads training runs, page by page and past the end", () => {
      const { by_path, run, walked } = saw("runs")
      assert.strictEqual(run.training_run_id, saw("model").model_id)
      assert.deepInclude(run, { base_model: model, corrupted: false, is_lora: true, lora_rank: 4 })
      assert.deepStrictEqual(run.user_metadata, { purpose: "peer" })
      assert.strictEqual(by_path, run.training_run_id)
      inPages(walked, 2)
    })

    it("lists checkpoints of a run and of the user", () => {
      const { info, own, user } = saw("checkpoints")
      const kinds = Object.fromEntries(own.map((one) => [one.checkpoint_id, one.checkpoint_type]))
      assert.deepStrictEqual(kinds, {
        "weights/two-steps": "training",
        "weights/kept": "training",
        "sampler_weights/sampler": "sampler"
      })
      for (const one of own) {
        assert.isAbove(one.size_bytes, 0)
        assert.strictEqual(one.expires_at !== null, one.checkpoint_id === "weights/two-steps")
      }
      inPages(user, 2)
      assert.deepInclude(info, { base_model: model, is_lora: true, lora_rank: 4 })
    })

    it("publishes, withdraws, limits, frees and deletes a checkpoint", () => {
      const look = (isPublic: boolean, expires: boolean) => ({ public: isPublic, expires })
      const { left, seen } = saw("care")
      const expected = [
        look(false, false),
        look(true, false),
        look(false, false),
        look(false, true),
        look(false, false),
        null
      ]
      assert.deepStrictEqual([seen, left], [expected, 0])
    })

    it("downloads an archive: a whole tar.gz of an adapter", () => {
      const seen = archive()
      if (seen === undefined) return
      const { config, expires, gzip, names, tensors, whole } = seen
      assert.isAbove(expires, 0)
      assert.deepStrictEqual([gzip, whole], [true, true])
      assert.includeMembers([...names], ["adapter_config.json", "adapter_model.safetensors", "checkpoint_complete"])
      assert.strictEqual(config.r, 4)
      assert.isAbove(config.lora_alpha, 0)
      const factors = Object.keys(tensors)
      assert.isAbove(factors.length, 0)
      for (const name of factors) {
        assert.match(name, /^base_model\.model\..+\.lora_[AB]\.weight$/)
        const partner = name.includes("lora_A") ? name.replace("lora_A", "lora_B") : name.replace("lora_B", "lora_A")
        assert.include(factors, partner)
      }
    })

    it("reads, lists and files its sessions, and exports a trace", () => {
      const sessions = saw("sessions")
      inPages(sessions.listed, 1, "no cursor")
      assert.include(sessions.listed.whole, sessions.session_id)
      assert.include(sessions.runs, sessions.model_id)
      assert.isAtLeast(sessions.samplers, 1)
      assert.include(sessions.project, sessions.model_id)
      assert.match(sessions.trace, /^http/)
    })

    it("reads the bill and the audit log", () => {
      const { audit, usage } = saw("accounts")
      assert.isArray(usage.data)
      assert.isObject(usage.sessions)
      assert.isArray(audit)
    })

    it("exchanges its key for a token and knows from it who it is", () => {
      const who = saw("whoami")
      assert.isString(who.user_urn)
      assert.isAbove(who.user_urn.length, 0)
    })

    it("is told what was wrong with a request in its own classes of errors", () => {
      const { key, loss, model, path, run, token } = saw("refusals")
      assert.deepInclude(model, { type: "BadRequestError", status: 400 })
      assert.deepInclude(run, { type: "NotFoundError", status: 404 })
      assert.isNotNull(path)
      for (const failure of [loss, token]) assert.include(["RequestFailedError", "BadRequestError"], failure?.type)
      assert.include(["AuthenticationError", "PermissionDeniedError"], key?.type)
    })

    it("finds what later revisions of the API brought", () => {
      const later = saw("later")
      if ("absent" in later) return
      assert.deepStrictEqual(later.labels, [{ stage: "peer" }])
      assert.isAbove(later.sequence_id.length, 0)
      for (const [at, row] of later.topk.entries()) {
        assert.strictEqual(row.length, 2)
        assert.deepStrictEqual([...(row[0] ?? [])], [later.tokens[at], later.logprobs[at]])
      }
      assert.deepStrictEqual(
        later.named.filter((_, at) => at % 2 === 0),
        later.computed.slice(1)
      )
      assert.deepStrictEqual(
        later.tail,
        later.computed.map((one, at) => (at < 5 ? null : one))
      )
      assert.deepStrictEqual(later.others, [
        [8, 2],
        [8, 2]
      ])
      assert.isAbove(later.files["adapter_model.safetensors"] ?? 0, 0)
      assert.isAbove(later.files["adapter_config.json"] ?? 0, 0)
      assert.match(later.copied, /^tinker:\/\/.+\/weights\//)
      assert.notStrictEqual(later.copied, later.path)
      assert.isArray(later.usage.data)
    })

    it("ends its session", () => assert.isDefined(saw("finish")))

    it("lists runs and checkpoints with its command", async () => {
      const runs = await command(env, url, ["-f", "json", "run", "list", "--limit", "0"])
      assert.strictEqual(runs.code, 0, runs.err)
      const ids = JSON.parse(runs.out).runs.map((run: { training_run_id: string }) => run.training_run_id)
      assert.include(ids, saw("model").model_id)
      const table = await command(env, url, ["run", "list"])
      assert.strictEqual(table.code, 0, table.err)
      assert.match(table.out, /training runs/)
      const checkpoints = await command(env, url, ["-f", "json", "checkpoint", "list", "--limit", "0"])
      assert.strictEqual(checkpoints.code, 0, checkpoints.err)
      const paths = JSON.parse(checkpoints.out).checkpoints.map((one: { tinker_path: string }) => one.tinker_path)
      assert.include(paths, saw("state").path)
      const info = await command(env, url, ["-f", "json", "checkpoint", "info", saw("state").path])
      assert.strictEqual(info.code, 0, info.err)
      assert.strictEqual(JSON.parse(info.out).lora_rank, 4)
      const gone = await command(env, url, ["run", "info", "no-such-run"])
      assert.strictEqual(gone.code, 1)
      assert.match(gone.err, /not found/i)
    })

    it("publishes, limits, downloads and deletes a checkpoint with its command", async () => {
      const folder = mkdtempSync(join(tmpdir(), "tinkex-peers-"))
      try {
        const path = saw("state").kept
        for (const args of [
          ["publish", path],
          ["unpublish", path],
          ["set-ttl", path, "--ttl", "7200"],
          ["set-ttl", path, "--remove"]
        ]) {
          const done = await command(env, url, ["checkpoint", ...args])
          assert.strictEqual(done.code, 0, `${args[0]}: ${done.err}`)
        }
        {
          // the newest downloads states, the older one what was saved for sampling
          const sampler = api === "0.25" ? saw("sampling").path : saw("state").path
          const done = await command(env, url, ["-f", "json", "checkpoint", "download", sampler, "-o", folder], folder)
          assert.strictEqual(done.code, 0, done.err)
          const { destination } = JSON.parse(done.out)
          assert.includeMembers(readdirSync(destination), ["adapter_config.json", "adapter_model.safetensors"])
        }
        const deleted = await command(env, url, ["-f", "json", "checkpoint", "delete", path, "-y"])
        assert.strictEqual(deleted.code, 0, deleted.err)
        assert.strictEqual(JSON.parse(deleted.out).deleted_count, 1)
      } finally {
        rmSync(folder, { recursive: true, force: true })
      }
    })
  })
}

describePeer("tinker-0.25", "0.25")
describePeer("tinker-0.38", "0.38")
