import { uniformArray } from "./lmRandom.ts"

/** Bytes 0..255, then BOS, EOS and PAD. */
export const vocabSize = 259

/** Rows of the output matrix in memory: the last one pads to an even number, stays zero and is no token. */
export const vocabRows = 260

export interface BaseModel {
  readonly name: string
  readonly dimension: number
  readonly hidden: number
  readonly maxContextLength: number
}

export const baseModels: ReadonlyArray<BaseModel> = [
  { name: "tiny/byte-lm-16", dimension: 16, hidden: 32, maxContextLength: 2048 },
  { name: "tiny/byte-lm-32", dimension: 32, hidden: 64, maxContextLength: 2048 }
]

export type ModuleGroup = "attn" | "mlp" | "unembed"

export interface ModuleShape {
  readonly name: string
  readonly group: ModuleGroup
  readonly outs: number
  /** `outs`, or more where the array in memory is padded. */
  readonly rows: number
  readonly ins: number
}

export interface ModuleTable<A> {
  readonly q: A
  readonly k: A
  readonly v: A
  readonly o: A
  readonly up: A
  readonly down: A
  readonly unembed: A
}

/** The order in which weights are drawn, hashed, stepped and stored. Changing it changes every hash. */
export const moduleKeys = ["q", "k", "v", "o", "up", "down", "unembed"] as const

export const moduleShapes = (base: BaseModel): ModuleTable<ModuleShape> => {
  const d = base.dimension
  const attention = (name: string): ModuleShape => ({
    name: `model.layers.0.self_attn.${name}`,
    group: "attn",
    outs: d,
    rows: d,
    ins: d
  })
  return {
    q: attention("q_proj"),
    k: attention("k_proj"),
    v: attention("v_proj"),
    o: attention("o_proj"),
    up: { name: "model.layers.0.mlp.up_proj", group: "mlp", outs: base.hidden, rows: base.hidden, ins: d },
    down: { name: "model.layers.0.mlp.down_proj", group: "mlp", outs: d, rows: d, ins: base.hidden },
    unembed: { name: "model.unembed_tokens", group: "unembed", outs: vocabSize, rows: vocabRows, ins: d }
  }
}

export const mapModules = <A, B>(
  table: ModuleTable<A>,
  f: (value: A, key: keyof ModuleTable<A>) => B
): ModuleTable<B> => ({
  q: f(table.q, "q"),
  k: f(table.k, "k"),
  v: f(table.v, "v"),
  o: f(table.o, "o"),
  up: f(table.up, "up"),
  down: f(table.down, "down"),
  unembed: f(table.unembed, "unembed")
})

/** The frozen half of a model. Shared by every model of the same base and never written to. */
export interface BaseWeights {
  readonly embedding: Float64Array
  readonly modules: ModuleTable<Float64Array>
}

const drawn = new Map<string, BaseWeights>()

export const baseWeights = (base: BaseModel): BaseWeights => {
  const known = drawn.get(base.name)
  if (known !== undefined) return known
  // The output head starts small so that an untrained model is close to uniform over the vocabulary.
  const weights = {
    embedding: uniformArray(`base|${base.name}|embedding`, vocabSize * base.dimension, 1),
    modules: mapModules(moduleShapes(base), (shape) => {
      const deviation = (shape.group === "unembed" ? 0.25 : 1) / Math.sqrt(shape.ins)
      const rows = new Float64Array(shape.rows * shape.ins)
      rows.set(uniformArray(`base|${base.name}|${shape.name}`, shape.outs * shape.ins, deviation))
      return rows
    })
  }
  drawn.set(base.name, weights)
  return weights
}
