import { uniformArray } from "./lmRandom.ts"
import { type BaseModel, mapModules, moduleKeys, moduleShapes, type ModuleShape, type ModuleTable } from "./lmShape.ts"

/** Fixed for every model: the low-rank product is multiplied by alpha / rank. */
export const loraAlpha = 32

export interface AdapterConfig {
  readonly rank: number
  readonly seed: number
  readonly trainAttn: boolean
  readonly trainMlp: boolean
  readonly trainUnembed: boolean
}

export interface Adapter {
  readonly shape: ModuleShape
  /** rank x ins */
  readonly a: string
  /** outs x rank */
  readonly b: string
}

const trained = (config: AdapterConfig, shape: ModuleShape): boolean =>
  shape.group === "attn" ? config.trainAttn : shape.group === "mlp" ? config.trainMlp : config.trainUnembed

export const adapters = (base: BaseModel, config: AdapterConfig): ModuleTable<Adapter | undefined> =>
  mapModules(moduleShapes(base), (shape) =>
    trained(config, shape)
      ? { shape, a: `base_model.model.${shape.name}.lora_A.weight`, b: `base_model.model.${shape.name}.lora_B.weight` }
      : undefined
  )

/** The adapters of a configuration in the order in which they are hashed, stepped and stored. */
export const adapterList = (base: BaseModel, config: AdapterConfig): ReadonlyArray<Adapter> => {
  const table = adapters(base, config)
  return moduleKeys.flatMap((key) => table[key] ?? [])
}

export interface FactorShape {
  readonly name: string
  readonly rows: number
  readonly columns: number
}

export const factorShapes = (base: BaseModel, config: AdapterConfig): ReadonlyArray<FactorShape> =>
  adapterList(base, config).flatMap((adapter) => [
    { name: adapter.a, rows: config.rank, columns: adapter.shape.ins },
    { name: adapter.b, rows: adapter.shape.outs, columns: config.rank }
  ])

export type Factors = Readonly<Record<string, Float64Array>>

/** A drawn from the seed, B zero: a fresh adapter changes nothing. Each factor has its own stream, whatever else is trained. */
export const freshFactors = (base: BaseModel, config: AdapterConfig): Factors => {
  const factors: Record<string, Float64Array> = {}
  for (const { a, b, shape } of adapterList(base, config)) {
    factors[a] = uniformArray(`lora|${config.seed}|${shape.name}`, config.rank * shape.ins, 1 / Math.sqrt(shape.ins))
    factors[b] = new Float64Array(shape.outs * config.rank)
  }
  return factors
}

/** Base plus alpha / rank * B A for the trained modules; the frozen array itself for the others. */
export const effectiveWeights = (
  frozen: ModuleTable<Float64Array>,
  table: ModuleTable<Adapter | undefined>,
  rank: number,
  factors: Factors
): ModuleTable<Float64Array> =>
  mapModules(frozen, (base, key) => {
    const adapter = table[key]
    if (adapter === undefined) return base
    const { ins, outs } = adapter.shape
    const a = factors[adapter.a]!
    const b = factors[adapter.b]!
    const scale = loraAlpha / rank
    const out = base.slice()
    for (let o = 0; o < outs; o++) {
      for (let r = 0; r < rank; r++) {
        const c = scale * b[o * rank + r]!
        if (c === 0) continue
        for (let i = 0; i < ins; i++) out[o * ins + i]! += c * a[r * ins + i]!
      }
    }
    return out
  })

/** Gradients of the two factors from the gradient `g` of the effective weight: dA = s B'g, dB = s g A'. */
export const factorGradients = (
  adapter: Adapter,
  rank: number,
  factors: Factors,
  g: Float64Array
): { readonly a: Float64Array; readonly b: Float64Array } => {
  const { ins, outs } = adapter.shape
  const a = factors[adapter.a]!
  const b = factors[adapter.b]!
  const scale = loraAlpha / rank
  const da = new Float64Array(rank * ins)
  const db = new Float64Array(outs * rank)
  for (let o = 0; o < outs; o++) {
    for (let r = 0; r < rank; r++) {
      const c = scale * b[o * rank + r]!
      let dot = 0
      for (let i = 0; i < ins; i++) {
        const gi = g[o * ins + i]!
        dot += gi * a[r * ins + i]!
        da[r * ins + i]! += c * gi
      }
      db[o * rank + r] = scale * dot
    }
  }
  return { a: da, b: db }
}
