import * as SampleResponse from "@tinkex/tinker/wire/SampleResponse"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as LanguageModel from "../src/LanguageModel.ts"
import { Emulator } from "../src/index.ts"
import * as Api from "./api.ts"

const bytes = (text: string) => Array.from(new TextEncoder().encode(text))

interface Ask {
  readonly prompt?: ReadonlyArray<number>
  readonly params?: Record<string, unknown>
  readonly more?: Record<string, unknown>
  readonly seqId?: number | string
}

const body = (sampler: string, { more, params, prompt = bytes("the "), seqId = 0 }: Ask) => {
  const json = JSON.stringify({
    sampling_session_id: sampler,
    num_samples: 1,
    prompt: { chunks: [{ type: "encoded_text", tokens: prompt }] },
    sampling_params: { max_tokens: 8, temperature: 1, top_k: -1, top_p: 1, ...params },
    prompt_logprobs: false,
    topk_prompt_logprobs: 0,
    type: "sample",
    ...more
  })
  return `{"seq_id":${seqId},${json.slice(1)}`
}

const submit = (sampler: string, ask: Ask = {}) => Api.post("asample", body(sampler, ask))

const sample = Effect.fnUntraced(function* (sampler: string, ask: Ask = {}) {
  const submitted = yield* Effect.flatMap(submit(sampler, ask), Api.expectOk)
  const answer = yield* Api.poll(submitted.body.request_id, "application/x-protobuf")
  assert.strictEqual(answer.type, "application/x-protobuf", JSON.stringify(answer.body))
  return yield* SampleResponse.decode(answer.bytes)
})

const first = (response: SampleResponse.SampleResponse) => response.sequences[0] ?? assert.fail("no sequence")

const openSession = (session: string, n: number, from: Record<string, unknown> = { base_model: "tiny/byte-lm-16" }) =>
  Api.post("create_sampling_session", { session_id: session, sampling_session_seq_id: n, ...from })

const open = Effect.fnUntraced(function* (session: string, n = 0, from?: Record<string, unknown>) {
  const opened = yield* Effect.flatMap(openSession(session, n, from), Api.expectOk)
  return opened.body.sampling_session_id ?? assert.fail("no id")
})

const fresh = Effect.flatMap(Api.createSession, (session) => open(session))

const saveForSampler = (model: string, seqId: number, more: Record<string, unknown>) =>
  Api.post("save_weights_for_sampler", { model_id: model, seq_id: seqId, type: "save_weights_for_sampler", ...more })

describe("sampling sessions", () => {
  it.effect("are opened on a base model, a sampler checkpoint, or the weights as they are", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const seq = yield* Api.train(model, 1, 0, 3)
      const saved = yield* Api.settle(saveForSampler(model, seq, { path: "three" }))
      assert.strictEqual(saved.path, `tinker://${model}/sampler_weights/three`)
      const ephemeral = yield* Api.settle(saveForSampler(model, seq + 1, { sampling_session_seq_id: 5 }))
      assert.strictEqual(ephemeral.sampling_session_id, `${session}:sample:5`)
      const base = yield* open(session, 0)
      assert.strictEqual(base, `${session}:sample:0`)
      const named = yield* open(session, 1, { model_path: saved.path })

      const ask: Ask = { params: { seed: 3 } }
      const fromName = yield* sample(named, ask)
      const fromHere = yield* sample(ephemeral.sampling_session_id ?? "", ask)
      assert.deepStrictEqual(fromName, fromHere)
      assert.notDeepEqual(first(yield* sample(base, ask)).logprobs, first(fromName).logprobs)

      // Later steps do not reach weights that were saved.
      yield* Api.train(model, seq + 2, 3, 5)
      assert.deepStrictEqual(yield* sample(named, { ...ask, seqId: 1 }), fromName)
      assert.deepStrictEqual(yield* sample(ephemeral.sampling_session_id ?? "", { ...ask, seqId: 1 }), fromName)

      const described: unknown = (yield* Api.get(`samplers/${named}`)).body
      assert.deepStrictEqual(described, {
        sampler_id: named,
        base_model: "tiny/byte-lm-16",
        model_path: saved.path
      })
      assert.deepStrictEqual((yield* Api.get(`sessions/${session}`)).body.sampler_ids, [
        ephemeral.sampling_session_id ?? "",
        base,
        named
      ])
      const listed = (yield* Api.get("checkpoints")).body.checkpoints ?? []
      assert.deepStrictEqual(
        listed.map(({ checkpoint_id, checkpoint_type }) => [checkpoint_id, checkpoint_type]),
        [["sampler_weights/three", "sampler"]]
      )
      const run = (yield* Api.get(`training_runs/${model}`)).body
      assert.strictEqual(run.last_sampler_checkpoint?.checkpoint_id, "sampler_weights/three")
      assert.isNull(run.last_checkpoint)
      assert.strictEqual((yield* Api.post("weights_info", { tinker_path: saved.path })).body.lora_rank, 4)
    }).pipe(Api.provided())
  )

  it.effect("a repeated request gets the same session or save, another one under its number is a conflict", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      assert.strictEqual(yield* open(session, 0), yield* open(session, 0))
      assert.strictEqual((yield* openSession(session, 0, { base_model: "tiny/byte-lm-32" })).status, 409)
      // The client counts its sampling sessions on with every try.
      const one = yield* saveForSampler(model, 1, { sampling_session_seq_id: 1 })
      const two = yield* saveForSampler(model, 1, { sampling_session_seq_id: 2 })
      assert.strictEqual(one.body.request_id, two.body.request_id)
      assert.strictEqual((yield* Api.poll(one.body.request_id)).body.sampling_session_id, `${session}:sample:1`)
      assert.strictEqual((yield* saveForSampler(model, 1, { path: "x" })).status, 409)
    }).pipe(Api.provided())
  )

  it.effect("with conflicts: original a number alone decides", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      assert.strictEqual(yield* open(session, 0), yield* open(session, 0, { base_model: "tiny/byte-lm-32" }))
      const one = yield* Api.optimStep(model, 1)
      assert.strictEqual((yield* Api.saveWeights(model, 1, "x")).body.request_id, one.body.request_id)
    }).pipe(Api.provided({ conflicts: "original" }))
  )

  it.effect("what cannot be sampled from is refused, naming it", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const trained = yield* Api.settle(Api.saveWeights(model, 1, "state"))
      const refusal = (from: Record<string, unknown>) =>
        Effect.map(openSession(session, 0, from), ({ body, status }) => `${status} ${String(body.detail)}`)
      assert.include(yield* refusal({ model_path: trained.path }), "is a training checkpoint")
      assert.match(yield* refusal({ model_path: `tinker://${model}/sampler_weights/none` }), /^404 /)
      assert.match(yield* refusal({ model_path: "somewhere" }), /^400 /)
      assert.match(yield* refusal({}), /^400 give model_path or base_model/)
      assert.match(yield* refusal({ base_model: "other" }), /^400 .*not served/)
      const named = yield* Api.settle(saveForSampler(model, 2, { path: "s" }))
      const load = yield* Api.loadWeights(yield* Api.createModel(session, 1), 1, named.path ?? "")
      assert.strictEqual(load.status, 400)
      assert.include(load.body.detail, "is a sampler checkpoint")
      const again = yield* Api.settle(saveForSampler(model, 3, { path: "s" }))
      assert.include(again.error, "ResourceAlreadyExists")
      assert.strictEqual((yield* saveForSampler(model, 4, {})).status, 422)
      assert.strictEqual((yield* submit("nobody")).status, 404)
      assert.strictEqual((yield* Api.get("samplers/nobody")).status, 404)
    }).pipe(Api.provided())
  )

  it.effect("end with their session", () =>
    Effect.gen(function* () {
      const sampler = yield* fresh
      yield* TestClock.adjust("301 seconds")
      assert.strictEqual((yield* submit(sampler)).status, 404)
    }).pipe(Api.provided())
  )
})

describe("samples", () => {
  it.effect("logprobs are those of a forward pass over the same tokens, bit for bit", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const seq = yield* Api.train(model, 1, 0, 3)
      const saved = yield* Api.settle(saveForSampler(model, seq, { sampling_session_seq_id: 0 }))
      const prompt = bytes("the quick")
      const response = yield* sample(saved.sampling_session_id ?? "", {
        prompt,
        params: { max_tokens: 30, seed: 1 },
        more: { prompt_logprobs: true }
      })
      const { logprobs = [], tokens } = first(response)
      const all = [...prompt, ...tokens]
      const datum = Api.datum("x")
      const pass = yield* Api.settle(
        Api.forwardBackward(
          model,
          seq + 1,
          [
            {
              ...datum,
              modelInput: { chunks: [{ type: "encoded_text", tokens: all.slice(0, -1) }] },
              lossFnInputs: { target_tokens: { dtype: "int64", data: all.slice(1), shape: [all.length - 1] } }
            }
          ],
          { forwardOnly: true }
        )
      )
      const expected = (pass.loss_fn_outputs?.[0]?.["logprobs"]?.data ?? []).map((value) => Math.fround(value))
      assert.strictEqual(expected.length, all.length - 1)
      assert.deepStrictEqual([...(response.promptLogprobs ?? []).slice(1), ...logprobs], expected)
      assert.isUndefined(response.promptLogprobs?.[0])
    }).pipe(Api.provided())
  )

  it.effect("the same seed draws the same tokens; sample i of several is the first of seed + i", () =>
    Effect.gen(function* () {
      const sampler = yield* fresh
      const three = yield* sample(sampler, { params: { seed: 40 }, more: { num_samples: 3 } })
      assert.strictEqual(new Set(three.sequences.map(({ tokens }) => tokens.join())).size, 3)
      for (const [i, sequence] of three.sequences.entries()) {
        const alone = yield* sample(sampler, { params: { seed: 40 + i }, seqId: i + 1 })
        assert.deepStrictEqual(first(alone), sequence)
      }
      const other = yield* sample(sampler, { seqId: 10 })
      assert.notDeepEqual(first(other).tokens, first(yield* sample(sampler, { seqId: 11 })).tokens)
      const wide = (seed: string, seqId: number) => {
        const text = body(sampler, { seqId, params: { seed: 0 } }).replace(`"seed":0`, `"seed":${seed}`)
        return Effect.flatMap(Effect.flatMap(Api.post("asample", text), Api.expectOk), (answer) =>
          Effect.map(Api.poll(answer.body.request_id), (result) => JSON.stringify(result.body))
        )
      }
      assert.notStrictEqual(yield* wide("9007199254740993", 20), yield* wide("9007199254740992", 21))
    }).pipe(Api.provided())
  )

  it.effect("temperature 0 and top_k 1 take the likeliest token, which top-k prompt logprobs name", () =>
    Effect.gen(function* () {
      const sampler = yield* fresh
      const greedy = first(yield* sample(sampler, { params: { temperature: 0 } }))
      assert.deepStrictEqual(first(yield* sample(sampler, { params: { top_k: 1 }, seqId: 1 })).tokens, greedy.tokens)
      assert.deepStrictEqual(first(yield* sample(sampler, { params: { top_p: 1e-9 }, seqId: 2 })).tokens, greedy.tokens)
      const prompt = [...bytes("the "), ...greedy.tokens]
      const scored = yield* sample(sampler, {
        prompt,
        more: { prompt_logprobs: true, topk_prompt_logprobs: 3 },
        seqId: 3
      })
      const rows = scored.topkPromptLogprobs ?? []
      assert.strictEqual(rows.length, prompt.length)
      assert.isUndefined(rows[0])
      for (const [i, token] of greedy.tokens.entries()) {
        const row = rows[4 + i] ?? []
        assert.strictEqual(row.length, 3)
        assert.deepStrictEqual(row[0], [token, greedy.logprobs?.[i] ?? 0])
        assert.isAtLeast(row[0]?.[1] ?? 0, row[1]?.[1] ?? 0)
        assert.strictEqual(scored.promptLogprobs?.[4 + i], greedy.logprobs?.[i])
      }
    }).pipe(Api.provided())
  )

  it.effect(
    "the likeliest tokens are told for each place of a sample, and the end of a prompt may be scored alone",
    () =>
      Effect.gen(function* () {
        const sampler = yield* fresh
        const prompt = bytes("the end")
        const all = yield* sample(sampler, { prompt, more: { prompt_logprobs: true, topk_prompt_logprobs: 2 } })
        const more = {
          prompt_logprobs: true,
          topk_prompt_logprobs: 2,
          prompt_logprobs_last_n: 2,
          topk_sample_logprobs: 3
        }
        const some = yield* sample(sampler, { prompt, more, params: { temperature: 0 }, seqId: 1 })
        assert.deepStrictEqual(
          some.promptLogprobs?.slice(0, 5),
          Array.from({ length: 5 }, () => undefined)
        )
        assert.deepStrictEqual(some.promptLogprobs?.slice(5), all.promptLogprobs?.slice(5))
        assert.deepStrictEqual(some.topkPromptLogprobs?.slice(5), all.topkPromptLogprobs?.slice(5))
        assert.isUndefined(some.topkPromptLogprobs?.[4])
        const { logprobs = [], tokens, topkLogprobs = [] } = first(some)
        assert.strictEqual(topkLogprobs.length, tokens.length)
        for (const [i, row] of topkLogprobs.entries()) {
          assert.strictEqual(row?.length, 3)
          assert.deepStrictEqual(row?.[0], [tokens[i] ?? -1, logprobs[i] ?? 0])
        }
        for (const wrong of [{ prompt_logprobs_last_n: 2 }, { prompt_logprobs: true, prompt_logprobs_last_n: 7 }]) {
          assert.strictEqual((yield* submit(sampler, { prompt, more: wrong, seqId: 9 })).status, 422)
        }
      }).pipe(Api.provided())
  )

  it.effect("named tokens are scored and others drawn in the places of a prompt", () =>
    Effect.gen(function* () {
      const sampler = yield* fresh
      const prompt = bytes("abc")
      const scored = yield* sample(sampler, { prompt, more: { prompt_logprobs: true, topk_prompt_logprobs: 259 } })
      const logprob = (place: number, token: number) =>
        (scored.topkPromptLogprobs?.[place] ?? []).find(([id]) => id === token)?.[1] ?? Number.NaN
      const dense = { data: [98, 7, -1, 99], dtype: "int64", shape: [2, 2] }
      const first = yield* sample(sampler, { prompt, more: { target_prompt_logprobs: dense }, seqId: 1 })
      const told = first.targetPromptLogprobs
      assert.deepStrictEqual(told?.shape, [2, 2])
      const expected = [logprob(1, 98), logprob(1, 7), 0, logprob(2, 99)]
      assert.deepStrictEqual(Array.from(told?.data ?? []), expected)
      assert.strictEqual(expected[0], scored.promptLogprobs?.[1])

      const sparse = { ...dense, data: [7, 99], sparse_crow_indices: [0, 1, 2], sparse_col_indices: [1, 1] }
      const second = yield* sample(sampler, { prompt, more: { target_prompt_logprobs: sparse }, seqId: 2 })
      assert.deepStrictEqual(Array.from(second.targetPromptLogprobs?.data ?? []), [logprob(1, 7), logprob(2, 99)])
      assert.deepStrictEqual(Array.from(second.targetPromptLogprobs?.csr?.col ?? []), [1, 1])

      const ask: Ask = { prompt, more: { prompt_alt_tokens_k: 3 }, params: { seed: 4 }, seqId: 3 }
      const { promptAltTokens } = yield* sample(sampler, ask)
      assert.deepStrictEqual(promptAltTokens?.tokens.shape, [2, 3])
      const tokens = Array.from(promptAltTokens?.tokens.data ?? [])
      const places = [1, 1, 1, 2, 2, 2]
      const drawn = tokens.map((token, i) => logprob(places[i] ?? 0, token))
      assert.deepStrictEqual(Array.from(promptAltTokens?.logprobs.data ?? []), drawn)
      assert.isAbove(new Set(tokens).size, 1)
      const again = yield* sample(sampler, { ...ask, seqId: 4 })
      assert.deepStrictEqual(again.promptAltTokens, promptAltTokens)

      for (const wrong of [
        { ...dense, shape: [4, 1] },
        { ...dense, data: [98, 7, -2, 99] },
        { ...dense, data: [98, 7, 259, 99] }
      ]) {
        assert.strictEqual(
          (yield* submit(sampler, { prompt, more: { target_prompt_logprobs: wrong }, seqId: 9 })).status,
          422
        )
      }
    }).pipe(Api.provided())
  )

  it.effect("top_k and top_p keep to the likeliest tokens, temperature changes how often", () =>
    Effect.gen(function* () {
      const sampler = yield* fresh
      const seen = Effect.fnUntraced(function* (params: Record<string, unknown>, seqId: number) {
        const many = yield* sample(sampler, {
          params: { max_tokens: 1, seed: 0, ...params },
          more: { num_samples: 500 },
          seqId
        })
        return many.sequences.map(({ tokens }) => tokens[0] ?? -1)
      })
      const prompt = [...bytes("the "), 0]
      const scored = yield* sample(sampler, { prompt, more: { topk_prompt_logprobs: 259 }, seqId: 1 })
      const ranked = scored.topkPromptLogprobs?.[4] ?? []
      assert.strictEqual(ranked.length, 259)
      const top = (n: number) => new Set(ranked.slice(0, n).map(([token]) => token))
      const five = new Set(yield* seen({ top_k: 5 }, 2))
      assert.deepStrictEqual(five, top(5))
      let mass = 0
      let nucleus = 0
      while (mass < 0.2) mass += Math.exp(ranked[nucleus++]?.[1] ?? 0)
      for (const token of yield* seen({ top_p: 0.2 }, 3)) assert.isTrue(top(nucleus).has(token))
      const best = ranked[0]?.[0]
      const share = (tokens: ReadonlyArray<number>) => tokens.filter((token) => token === best).length
      assert.isAbove(share(yield* seen({ temperature: 0.1 }, 4)), share(yield* seen({ temperature: 2 }, 5)))
      // Every draw follows the model: the frequencies agree with the probabilities (500 draws, seeds 0 to 499).
      const drawn = yield* seen({}, 6)
      const upper = drawn.filter((token) => top(20).has(token)).length / 500
      const expected = ranked.slice(0, 20).reduce((sum, [, logprob]) => sum + Math.exp(logprob), 0)
      assert.isBelow(Math.abs(upper - expected), 0.06)
    }).pipe(Api.provided())
  )

  it.effect("stops after a stop token or text, which is part of the sample, and otherwise at its length", () =>
    Effect.gen(function* () {
      const sampler = yield* fresh
      const free = first(yield* sample(sampler, { params: { max_tokens: 20, seed: 6 } }))
      assert.strictEqual(free.stopReason, "length")
      assert.strictEqual(free.tokens.length, 20)
      const at = free.tokens.findIndex((token, i) => token < 128 && i > 3 && free.tokens.indexOf(token) === i)
      const token = free.tokens[at] ?? -1
      const expected = { tokens: free.tokens.slice(0, at + 1), stopReason: "stop" as const }
      const stopped = (stop: unknown, seqId: number) =>
        Effect.map(sample(sampler, { params: { max_tokens: 20, seed: 6, stop }, seqId }), first)
      assert.deepInclude(yield* stopped([token], 1), expected)
      assert.deepInclude(yield* stopped(String.fromCharCode(token), 2), expected)
      assert.deepInclude(yield* stopped(["never there", String.fromCharCode(token)], 3), expected)
    }).pipe(Api.provided())
  )

  it.effect("without max_tokens a sample ends at its own end or where the context does", () =>
    Effect.gen(function* () {
      const sampler = yield* fresh
      const { stopReason, tokens } = first(yield* sample(sampler, { params: { max_tokens: undefined, seed: 2 } }))
      if (stopReason === "stop") assert.strictEqual(tokens.at(-1), LanguageModel.eosToken)
      else assert.strictEqual(tokens.length, 2048 - 4)
      assert.isFalse(tokens.slice(0, -1).includes(LanguageModel.eosToken))
    }).pipe(Api.provided())
  )

  it.effect("a number of a sampling session names one request, beyond 2^53 too", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const sampler = yield* fresh
      const id = (seqId: number | string) => Effect.map(submit(sampler, { seqId }), ({ body }) => body.request_id)
      const high = "500658873000000001"
      assert.strictEqual(yield* id(high), `${sampler}:${high}`)
      assert.strictEqual(yield* id(high), `${sampler}:${high}`)
      assert.strictEqual(yield* id("500658873000000000"), `${sampler}:500658873000000000`)
      const results = yield* Effect.forEach([high, "500658873000000000"], (seqId) => Api.poll(`${sampler}:${seqId}`))
      assert.notDeepEqual(results[0]?.body, results[1]?.body)
      assert.strictEqual((yield* submit(sampler, { seqId: high, params: { max_tokens: 3 } })).status, 409)
      const duplicates = (yield* control.requests).filter(({ duplicate }) => duplicate === true)
      assert.strictEqual(duplicates.length, 1)
      yield* TestClock.adjust("61 minutes")
      assert.strictEqual((yield* Api.poll(`${sampler}:${high}`)).status, 410)
      assert.strictEqual((yield* Api.poll(`${sampler}:77`)).status, 404)
    }).pipe(Api.provided({ sessionTimeout: "1 day" }))
  )

  it.effect("results are JSON for clients that ask for it", () =>
    Effect.gen(function* () {
      const sampler = yield* fresh
      const ask: Ask = { more: { prompt_logprobs: true, topk_prompt_logprobs: 1 }, params: { seed: 1 } }
      const binary = yield* sample(sampler, ask)
      const { body } = yield* Api.poll(`${sampler}:0`)
      const received: unknown = body
      assert.deepStrictEqual(received, {
        type: "sample",
        sequences: binary.sequences.map(({ logprobs, stopReason, tokens }) => ({
          stop_reason: stopReason,
          tokens,
          logprobs
        })),
        prompt_logprobs: (binary.promptLogprobs ?? []).map((value) => value ?? null),
        topk_prompt_logprobs: (binary.topkPromptLogprobs ?? []).map((row) => row ?? null)
      })
    }).pipe(Api.provided())
  )

  it.effect("may name the model themselves, without a session", () =>
    Effect.gen(function* () {
      const json = (more: Record<string, unknown>) => ({
        prompt: { chunks: [{ tokens: bytes("a") }] },
        sampling_params: { max_tokens: 2 },
        ...more
      })
      const result = yield* Api.settle(Api.post("asample", json({ base_model: "tiny/byte-lm-16" })))
      assert.strictEqual(result.sequences?.[0]?.tokens.length, 2)
      assert.strictEqual((yield* Api.post("asample", json({}))).status, 400)
    }).pipe(Api.provided())
  )

  it.effect("a request that cannot be served is refused, naming what is wrong", () =>
    Effect.gen(function* () {
      const sampler = yield* fresh
      const refusal = (ask: Ask) =>
        Effect.map(submit(sampler, ask), ({ body, status }) => `${status} ${JSON.stringify(body.detail)}`)
      assert.include(
        yield* refusal({ prompt: Array.from({ length: 2000 }, () => 1), params: { max_tokens: 100 } }),
        "Prompt length plus max_tokens exceeds the model's context window: 2000 + 100 > 2048"
      )
      assert.match(yield* refusal({ prompt: [] }), /^400 .*empty/)
      assert.match(yield* refusal({ prompt: [259] }), /^400 .*259/)
      assert.match(
        yield* refusal({ more: { prompt: { chunks: [{ type: "image", data: "", format: "png" }] } } }),
        /^400 /
      )
      for (const params of [
        { max_tokens: 0 },
        { temperature: -1 },
        { top_p: 0 },
        { top_p: 2 },
        { top_k: -2 },
        { stop: [1, "a"] },
        { stop: {} }
      ]) {
        assert.match(yield* refusal({ params }), /^422 /, JSON.stringify(params))
      }
      assert.match(yield* refusal({ more: { num_samples: 5000 } }), /^400 /)
      assert.strictEqual((yield* submit(sampler)).status, 200)
    }).pipe(Api.provided())
  )

  it.effect("compute none answers at once in the right shape", () =>
    Effect.gen(function* () {
      const sampler = yield* fresh
      const { promptLogprobs, sequences } = yield* sample(sampler, { more: { num_samples: 2, prompt_logprobs: true } })
      assert.deepStrictEqual(
        sequences.map(({ tokens }) => tokens.length),
        [8, 8]
      )
      assert.strictEqual(promptLogprobs?.length, 4)
    }).pipe(Api.provided({ compute: "none" }))
  )
})
