/** What each operation does when its turn comes. */
import * as CheckpointPath from "@tinkex/tinker/wire/CheckpointPath"
import * as Effect from "effect/Effect"
import type { CheckpointStoreError } from "../CheckpointStore.ts"
import type * as LanguageModel from "../LanguageModel.ts"
import * as Sampler from "../Sampler.ts"
import { type CheckpointKind, type CheckpointRecord, type Run, storeId } from "./catalog.ts"
import * as Compute from "./compute.ts"
import { type AdamParams, failed, type OperationFailed, type Pass, type Trainee } from "./compute.ts"
import * as Digest from "./digest.ts"
import type { Result } from "./futures.ts"
import * as Outputs from "./outputs.ts"
import { corrupted, notLoaded } from "./deaths.ts"
import type { Model, Work } from "./entities.ts"
import type { World } from "./world.ts"

const body = (value: Readonly<Record<string, unknown>>): Result => ({ _tag: "Json", body: value })

/** Stands for the work of an operation that was accepted before: it is never done again. */
export const settled: Work = () => Effect.die("an operation was executed twice")

const trainee = (model: Model): Effect.Effect<Trainee, OperationFailed> =>
  model.trainee === undefined
    ? Effect.fail(failed(`${notLoaded(model.id)}: it was never created`, "server"))
    : Effect.succeed(model.trainee)

const configOf = (world: World, run: Run) => ({
  baseModel: world.baseOf(run.baseModel),
  rank: run.rank,
  seed: run.seed,
  trainMlp: run.trainMlp,
  trainAttn: run.trainAttn,
  trainUnembed: run.trainUnembed
})

/** Stands in for a state where nothing is computed: what was applied, in order. */
const lineageHash = (run: Run) => Digest.ofParts(run.ledger.map((entry) => entry.digest))

const idle = (world: World, run: Run) => Compute.idle(configOf(world, run), () => lineageHash(run))

export const createModel =
  (world: World): Work =>
  (model) =>
    Effect.gen(function* () {
      model.trainee =
        world.settings.compute === "none" ? idle(world, model.run) : yield* Compute.make(configOf(world, model.run))
      world.records.did("model_created", model.run)
      yield* world.persist(model.run)
      return body({ model_id: model.id, type: "create_model" })
    })

const tokensOf = ({ data }: Pass): number =>
  data.reduce(
    (sum, { modelInput }) =>
      sum + modelInput.chunks.reduce((n, chunk) => n + (chunk.type === "encoded_text" ? chunk.tokens.length : 0), 0),
    0
  )

export const pass =
  (world: World, batch: Pass, digests: Uint8Array, forwardOnly: boolean): Work =>
  (model) =>
    Effect.gen(function* () {
      const state = yield* trainee(model)
      const result = yield* state.pass(batch, !forwardOnly)
      const consumer = world.records.consumer(model.session, model.run.baseModel)
      world.records.charge(consumer, { type: "training", token_count: tokensOf(batch) })
      if (!forwardOnly) {
        model.gradients.push(digests)
        model.datums += batch.data.length
      }
      return Outputs.pass({
        lossFnOutputType: "TorchLossReturn",
        lossFnOutputs: result.logprobs.map((values, i) => ({
          logprobs: {
            dtype: "float32",
            data: Float32Array.from(values),
            shape: batch.data[i]?.lossFnInputs["target_tokens"]?.shape ?? [values.length]
          }
        })),
        metrics: { "loss:sum": result.loss }
      })
    })

export const optimStep =
  (world: World, adam: AdamParams): Work =>
  (model, seqId) =>
    Effect.gen(function* () {
      const state = yield* trainee(model)
      const step = model.run.ledger.length
      const fault = world.faults.step(step, { modelId: model.id, seqId })
      if (fault === "corrupt" || fault === "corruptUnflagged" || model.tainted) {
        yield* world.poison(model, fault === "corruptUnflagged")
        return yield* Effect.fail(failed(corrupted(model.id), "server"))
      }
      if (fault === "loseSession") {
        world.expire(model.session)
        return yield* Effect.fail(failed(notLoaded(model.id), "server"))
      }
      const metrics = yield* state.step(adam)
      model.run.ledger.push({
        seqId,
        step,
        digest: Digest.ofParts(model.gradients),
        datums: model.datums,
        modelId: model.id
      })
      model.gradients = []
      model.datums = 0
      return body({ type: "optim_step", metrics })
    })

const storageTrouble = (error: CheckpointStoreError) =>
  failed(error.message, error.reason._tag === "InvalidId" ? "user" : "server")

export const storeFiles = (
  world: World,
  options: {
    readonly id: string
    readonly snapshot: LanguageModel.Snapshot
    readonly meta: { readonly steps: number }
  }
) => {
  const save = world.store.save(options)
  return save.pipe(
    // Left over from a checkpoint that is overwritten, expired or was never entered in the catalog.
    Effect.catchReason("CheckpointStoreError", "AlreadyExists", () =>
      Effect.andThen(world.store.remove(options.id), save)
    ),
    Effect.catchTags({
      CheckpointStoreError: (error) => Effect.fail(storageTrouble(error)),
      LanguageModelError: (error) => Effect.fail(failed(error.message, "server"))
    })
  )
}

interface SaveOptions {
  readonly name: string
  readonly ttlSeconds: number | undefined
  readonly userMetadata: Readonly<Record<string, string>> | null
}

/** Enters a checkpoint in the catalog, in place of one of the same name. */
const enter = (
  world: World,
  run: Run,
  kind: CheckpointKind,
  { name, ttlSeconds, userMetadata }: SaveOptions,
  found: Pick<CheckpointRecord, "sizeBytes" | "steps" | "damage">
) =>
  Effect.suspend(() => {
    const savedAt = world.now()
    const expiresAt = ttlSeconds === undefined ? null : savedAt + ttlSeconds * 1000
    const record: CheckpointRecord = { kind, name, savedAt, expiresAt, public: false, userMetadata, ...found }
    run.checkpoints = [...run.checkpoints.filter((other) => other.kind !== kind || other.name !== name), record]
    world.records.did("checkpoint_saved", run, record)
    return world.persist(run)
  })

const refuseTaken = (world: World, run: Run, kind: CheckpointKind, name: string) =>
  Effect.suspend(() => {
    if (findCheckpoint(world, run, kind, name) === undefined) return Effect.void
    const path = pathOf(run.id, { kind, name })
    const way = kind === "weights" ? "Choose another name, or set overwrite." : "Choose another name."
    return Effect.fail(failed(`ResourceAlreadyExists: ${path} exists. ${way}`, "user"))
  })

export const saveWeights =
  (world: World, options: SaveOptions & { readonly overwrite: boolean }): Work =>
  (model, seqId) =>
    Effect.gen(function* () {
      const { run } = model
      const state = yield* trainee(model)
      const { name } = options
      const id = storeId(run.id, "weights", name)
      const path = CheckpointPath.format({ runId: run.id, kind: "weights", name })
      if (!options.overwrite) yield* refuseTaken(world, run, "weights", name)
      const steps = run.ledger.length
      const damage = world.faults.save(steps, { modelId: model.id, seqId })
      const done = body({ path, type: "save_weights" })
      if (damage === "absent") return done

      let sizeBytes = idleCheckpointBytes
      const { snapshot } = state
      if (snapshot !== undefined) {
        const stored = yield* storeFiles(world, { id, snapshot, meta: { steps } })
        sizeBytes = stored.sizeBytes
        if (damage === "truncated") yield* Effect.mapError(world.store.truncate(id), storageTrouble)
        if (damage === "missing" || damage === "empty") yield* Effect.mapError(world.store.remove(id), storageTrouble)
      }
      if (damage === "empty") sizeBytes = 0
      if (damage === "truncated") sizeBytes = Math.floor(sizeBytes / 2)
      world.records.charge(world.records.consumer(model.session, run.baseModel), { type: "checkpoint", count: 1 })
      yield* enter(world, run, "weights", options, { sizeBytes, steps, damage: damage ?? null })
      return done
    })

/** The path of a checkpoint. Those for other programs have a kind that the grammar of 0.25 does not know. */
export const pathOf = (runId: string, { kind, name }: Pick<CheckpointRecord, "kind" | "name">): string =>
  `tinker://${runId}/${kind}/${name}`

export const saveForSampler =
  (world: World, kind: "sampler_weights" | "external_weights", options: SaveOptions): Work =>
  (model) =>
    Effect.gen(function* () {
      const { run } = model
      const { snapshot } = yield* trainee(model)
      const { name } = options
      const steps = run.ledger.length
      yield* refuseTaken(world, run, kind, name)
      let sizeBytes = idleCheckpointBytes
      if (snapshot !== undefined) {
        const id = storeId(run.id, kind, name)
        const stored = yield* storeFiles(world, { id, snapshot: { ...snapshot, adam: undefined }, meta: { steps } })
        sizeBytes = stored.sizeBytes
      }
      world.records.charge(world.records.consumer(model.session, run.baseModel), { type: "checkpoint", count: 1 })
      yield* enter(world, run, kind, options, { sizeBytes, steps, damage: null })
      const type = kind === "sampler_weights" ? "save_weights_for_sampler" : "save_weights_external"
      return body({ path: pathOf(run.id, { kind, name }), type })
    })

/** Opens a sampling session on the weights as they are, without a checkpoint. */
export const sampleFromHere =
  (world: World, options: { readonly samplingSeqId: number; readonly digest: string }): Work =>
  (model) =>
    Effect.gen(function* () {
      const { snapshot } = yield* trainee(model)
      const { run, session } = model
      const id = samplerId(session.id, options.samplingSeqId)
      if (session.samplers.has(options.samplingSeqId)) {
        const taken = `sampling_session_seq_id ${options.samplingSeqId} is taken by another sampling session`
        return yield* Effect.fail(failed(taken, "user"))
      }
      const sampler = snapshot === undefined ? Sampler.ofBase(world.baseOf(run.baseModel)) : Sampler.ofWeights(snapshot)
      world.openSampler(options.samplingSeqId, {
        id,
        session,
        digest: options.digest,
        baseModel: run.baseModel,
        modelPath: null,
        sampler: Effect.succeed(sampler)
      })
      return body({ sampling_session_id: id, path: null, type: "save_weights_for_sampler" })
    })

export const samplerId = (sessionId: string, samplingSeqId: number) => `${sessionId}:sample:${samplingSeqId}`

/** The weights of a sampler checkpoint. */
export const samplerOf = (world: World, run: Run, name: string): Effect.Effect<Sampler.Sampler, OperationFailed> =>
  world.settings.compute === "none"
    ? Effect.sync(() => Sampler.ofBase(world.baseOf(run.baseModel)))
    : Effect.mapBoth(world.store.load(storeId(run.id, "sampler_weights", name)), {
        onFailure: storageTrouble,
        onSuccess: ({ snapshot }) => Sampler.ofWeights(snapshot)
      })

/** Where nothing is computed, nothing is stored either; a listing still shows a plausible size. */
const idleCheckpointBytes = 1024

/** A checkpoint that has not expired. */
export const findCheckpoint = (
  world: World,
  run: Run,
  kind: CheckpointKind,
  name: string
): CheckpointRecord | undefined =>
  run.checkpoints.find(
    (checkpoint) =>
      checkpoint.kind === kind &&
      checkpoint.name === name &&
      (checkpoint.expiresAt === null || checkpoint.expiresAt > world.now())
  )

/** The same with one weight that is wrong by 1, in a factor that shows at once. */
const altered = (snapshot: LanguageModel.Snapshot): LanguageModel.Snapshot => {
  const factors = Object.entries(snapshot.factors)
  const [name, values] = factors.find(([name]) => name.endsWith(".lora_B.weight")) ?? factors[0] ?? []
  if (name === undefined || values === undefined) return snapshot
  const changed = values.slice()
  changed[0] = (changed[0] ?? 0) + 1
  return { ...snapshot, factors: { ...snapshot.factors, [name]: changed } }
}

export const loadWeights =
  (world: World, options: { readonly source: Run; readonly name: string; readonly optimizer: boolean }): Work =>
  (model) =>
    Effect.gen(function* () {
      const { name, source } = options
      const path = CheckpointPath.format({ runId: source.id, kind: "weights", name })
      const record = findCheckpoint(world, source, "weights", name)
      if (record === undefined) return yield* Effect.fail(failed(`Checkpoint ${path} does not exist`, "user"))
      const idleDamage = record.damage === "missing" || record.damage === "truncated" || record.damage === "empty"
      if (world.settings.compute === "none") {
        if (idleDamage) return yield* Effect.fail(failed(`Checkpoint ${path} is damaged: ${record.damage}`, "server"))
        model.trainee = idle(world, model.run)
      } else {
        const stored = yield* Effect.mapError(world.store.load(storeId(source.id, "weights", name)), storageTrouble)
        const snapshot = record.damage === "altered" ? altered(stored.snapshot) : stored.snapshot
        model.trainee = yield* Compute.restore(snapshot, { optimizer: options.optimizer })
      }
      model.run.ledger = source.ledger.slice(0, record.steps)
      model.tainted = record.damage === "poisonedOnStep"
      if (record.damage === "poisonedOnLoad") yield* world.poison(model)
      else yield* world.persist(model.run)
      return body({ path, model_id: model.id, type: "load_weights" })
    })
