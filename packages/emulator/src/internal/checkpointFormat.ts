import { createHash } from "node:crypto"

import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

import * as LanguageModel from "../LanguageModel.ts"
import * as Safetensors from "./safetensors.ts"

export const fileNames = {
  adapter: "adapter_model.safetensors",
  adapterConfig: "adapter_config.json",
  optimizer: "optimizer.safetensors",
  meta: "meta.json",
  complete: "checkpoint_complete"
} as const

const AdapterConfig = Schema.Struct({
  peft_type: Schema.Literal("LORA"),
  task_type: Schema.Literal("CAUSAL_LM"),
  base_model_name_or_path: Schema.String,
  r: Schema.Number,
  lora_alpha: Schema.Literal(LanguageModel.loraAlpha),
  lora_dropout: Schema.Literal(0),
  bias: Schema.Literal("none"),
  target_modules: Schema.Array(Schema.String),
  seed: Schema.Number,
  train_attn: Schema.Boolean,
  train_mlp: Schema.Boolean,
  train_unembed: Schema.Boolean
})

/** `files` lists size and digest of every other file except the marker. `meta` belongs to whoever saved the checkpoint. */
export const Meta = Schema.Struct({
  format: Schema.Literal(1),
  id: Schema.String,
  files: Schema.Record(Schema.String, Schema.Struct({ size: Schema.Number, sha256: Schema.String })),
  meta: Schema.Json
})
export type Meta = typeof Meta.Type

const text = (value: string): Uint8Array => new TextEncoder().encode(value)

export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

export const encodeMeta = (meta: Meta): Uint8Array => text(`${JSON.stringify(meta, undefined, 2)}\n`)

const decodeText = <S extends Schema.Decoder<unknown>>(schema: S, bytes: Uint8Array) =>
  Schema.decodeUnknownResult(Schema.fromJsonString(schema))(new TextDecoder().decode(bytes))

export const decodeMeta = (bytes: Uint8Array): Result.Result<Meta, string> =>
  Result.mapError(decodeText(Meta, bytes), (error) => error.message)

type Shapes = ReadonlyArray<{ readonly name: string; readonly rows: number; readonly columns: number }>

const tensorsOf = (
  shapes: Shapes,
  prefix: string,
  arrays: LanguageModel.Factors
): ReadonlyArray<readonly [string, Safetensors.Tensor]> =>
  shapes.map(({ columns, name, rows }) => [prefix + name, { shape: [rows, columns], data: arrays[name]! }])

/** The files of a checkpoint in the order in which they are to be written: the marker is the last. */
export const encode = Effect.fnUntraced(function* (options: {
  readonly id: string
  readonly snapshot: LanguageModel.Snapshot
  readonly meta: Schema.Json
}) {
  const { adam, config, factors } = options.snapshot
  const shapes = yield* LanguageModel.shapes(config)
  const adapterConfig: typeof AdapterConfig.Type = {
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    base_model_name_or_path: config.baseModel,
    r: config.rank,
    lora_alpha: LanguageModel.loraAlpha,
    lora_dropout: 0,
    bias: "none",
    target_modules: yield* LanguageModel.trainedModules(config),
    seed: config.seed,
    train_attn: config.trainAttn,
    train_mlp: config.trainMlp,
    train_unembed: config.trainUnembed
  }
  const files: Array<readonly [name: string, bytes: Uint8Array]> = [
    [fileNames.adapter, Safetensors.encode({ tensors: new Map(tensorsOf(shapes, "", factors)), metadata: new Map() })],
    [fileNames.adapterConfig, text(`${JSON.stringify(adapterConfig, undefined, 2)}\n`)]
  ]
  if (adam !== undefined) {
    const tensors = new Map([...tensorsOf(shapes, "exp_avg.", adam.m), ...tensorsOf(shapes, "exp_avg_sq.", adam.v)])
    files.push([fileNames.optimizer, Safetensors.encode({ tensors, metadata: new Map([["step", String(adam.t)]]) })])
  }
  const digests = files.map(([name, bytes]) => [name, { size: bytes.length, sha256: sha256(bytes) }] as const)
  const meta: Meta = { format: 1, id: options.id, files: Object.fromEntries(digests), meta: options.meta }
  files.push([fileNames.meta, encodeMeta(meta)], [fileNames.complete, text("")])
  return { files, meta }
})

/** What is wrong with the contents of one file. */
export interface Damage {
  readonly file: string
  readonly problem: string
}

const arraysOf = (shapes: Shapes, prefix: string, contents: Safetensors.Contents) => {
  const arrays: Record<string, Float64Array> = {}
  for (const { columns, name, rows } of shapes) {
    const tensor = contents.tensors.get(prefix + name)
    if (tensor === undefined) return Result.fail(`tensor ${prefix}${name} is missing`)
    if (tensor.shape.join() !== `${rows},${columns}`) {
      return Result.fail(`tensor ${prefix}${name} is ${tensor.shape.join(" x ")}, expected ${rows} x ${columns}`)
    }
    arrays[name] = tensor.data
  }
  return Result.succeed<LanguageModel.Factors>(arrays)
}

/** Builds the snapshot from files whose digests have been compared already. */
export const decode = Effect.fnUntraced(function* (files: ReadonlyMap<string, Uint8Array>) {
  const bytesOf = (file: string) =>
    Effect.fromOption(Option.fromNullishOr(files.get(file))).pipe(
      Effect.mapError((): Damage => ({ file, problem: "is not listed in meta.json" }))
    )
  const within = <A>(file: string, result: Result.Result<A, string>) =>
    Effect.fromResult(Result.mapError(result, (problem): Damage => ({ file, problem })))
  const raw = decodeText(AdapterConfig, yield* bytesOf(fileNames.adapterConfig))
  const parsed = yield* within(
    fileNames.adapterConfig,
    Result.mapError(raw, (error) => error.message)
  )
  const config: LanguageModel.ModelConfig = {
    baseModel: parsed.base_model_name_or_path,
    rank: parsed.r,
    seed: parsed.seed,
    trainAttn: parsed.train_attn,
    trainMlp: parsed.train_mlp,
    trainUnembed: parsed.train_unembed
  }
  const shapes = yield* LanguageModel.shapes(config).pipe(
    Effect.mapError((error): Damage => ({ file: fileNames.adapterConfig, problem: error.message }))
  )
  const adapter = yield* within(fileNames.adapter, Safetensors.decode(yield* bytesOf(fileNames.adapter)))
  if (adapter.tensors.size !== shapes.length) {
    return yield* within(fileNames.adapter, Result.fail(`${adapter.tensors.size} tensors, expected ${shapes.length}`))
  }
  const factors = yield* within(fileNames.adapter, arraysOf(shapes, "", adapter))
  const optimizerBytes = files.get(fileNames.optimizer)
  if (optimizerBytes === undefined) {
    const snapshot: LanguageModel.Snapshot = { config, factors, adam: undefined }
    return snapshot
  }
  const moments = yield* within(fileNames.optimizer, Safetensors.decode(optimizerBytes))
  const step = moments.metadata.get("step")
  const t = Number(step)
  if (step === undefined || !Number.isSafeInteger(t) || t < 0) {
    return yield* within(fileNames.optimizer, Result.fail(`step is ${step}`))
  }
  const m = yield* within(fileNames.optimizer, arraysOf(shapes, "exp_avg.", moments))
  const v = yield* within(fileNames.optimizer, arraysOf(shapes, "exp_avg_sq.", moments))
  const snapshot: LanguageModel.Snapshot = { config, factors, adam: { t, m, v } }
  return snapshot
})
