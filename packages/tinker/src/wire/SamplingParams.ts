/**
 * How tokens are drawn. The JSON form is what clients send; the protobuf form is public and not in use yet. Writing takes what it
 * is given: `problem` says beforehand what a service would refuse.
 */
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire"
import * as Effect from "effect/Effect"
import { Malformed } from "../internal/packed.ts"
import { WireError } from "./WireError.ts"

export interface SamplingParams {
  /** Most tokens of a sample, 1 or more. Default: the service's; some want it given. */
  readonly maxTokens?: number | undefined
  /** Any 64-bit number; the same one draws the same samples. Default: another one each time. */
  readonly seed?: number | bigint | undefined
  /** Texts, or tokens, after which a sample ends. Default: the model's own end. */
  readonly stop?: string | ReadonlyArray<string> | ReadonlyArray<number> | undefined
  /** 0 takes the likeliest token. Default 1. */
  readonly temperature?: number | undefined
  /** Draws from so many of the likeliest tokens; -1, the default, from all. */
  readonly topK?: number | undefined
  /** Draws from the likeliest tokens that together have this probability, above 0 to 1. Default 1: from all. */
  readonly topP?: number | undefined
}

/** With the defaults of the API filled in. */
export interface FullSamplingParams extends SamplingParams {
  readonly temperature: number
  readonly topK: number
  readonly topP: number
}

const isInt32 = (value: number): boolean => (value | 0) === value

const stopProblem = (stop: NonNullable<SamplingParams["stop"]>): string | undefined => {
  if (stop === "") return "is empty, and would end every sample at once"
  if (typeof stop === "string") return undefined
  for (const [i, one] of stop.entries()) {
    if (typeof one !== typeof stop[0]) return "holds both texts and tokens; give one kind"
    if (one === "") return `has an empty text at ${i}, which would end every sample at once`
    if (typeof one === "number" && (!isInt32(one) || one < 0)) return `has ${one} at ${i}, which is no token`
  }
  return undefined
}

/** What is wrong with the first parameter that no service can take. */
export const problem = (
  params: SamplingParams
): { readonly field: keyof SamplingParams; readonly problem: string } | undefined => {
  const { maxTokens, seed, stop, temperature, topK, topP } = params
  if (maxTokens !== undefined && (!isInt32(maxTokens) || maxTokens < 1)) {
    return { field: "maxTokens", problem: `is ${maxTokens} and must be a whole number above 0` }
  }
  if (seed !== undefined) {
    const whole = typeof seed === "bigint" || Number.isSafeInteger(seed)
    if (!whole || BigInt(seed) < -(2n ** 63n) || BigInt(seed) >= 2n ** 64n) {
      return { field: "seed", problem: `is ${seed} and must be a 64-bit whole number; beyond 2^53 give a bigint` }
    }
  }
  const badStop = stop === undefined ? undefined : stopProblem(stop)
  if (badStop !== undefined) return { field: "stop", problem: badStop }
  if (temperature !== undefined && !(Number.isFinite(temperature) && temperature >= 0)) {
    return { field: "temperature", problem: `is ${temperature} and must be a finite number, 0 or more` }
  }
  if (topK !== undefined && !(isInt32(topK) && (topK === -1 || topK > 0))) {
    return { field: "topK", problem: `is ${topK} and must be a whole number above 0, or -1 for all tokens` }
  }
  if (topP !== undefined && !(topP > 0 && topP <= 1)) {
    return { field: "topP", problem: `is ${topP} and must be above 0 and at most 1` }
  }
  return undefined
}

/** A JSON object; numbers of any size are written digit by digit. */
export const toJson = ({ maxTokens, seed, stop, temperature, topK, topP }: SamplingParams): string => {
  const most = maxTokens === undefined ? "" : `"max_tokens":${maxTokens},`
  const seeded = seed === undefined ? "" : `"seed":${seed},`
  const stopped = stop === undefined ? "" : `"stop":${JSON.stringify(stop)},`
  return `{${most}${seeded}${stopped}"temperature":${temperature ?? 1},"top_k":${topK ?? -1},"top_p":${topP ?? 1}}`
}

const isList = <A>(value: unknown, is: (one: unknown) => one is A): value is ReadonlyArray<A> =>
  Array.isArray(value) && value.every(is)
const isText = (value: unknown): value is string => typeof value === "string"
const isToken = (value: unknown): value is number => typeof value === "number" && isInt32(value)

/** From parsed JSON; throws what `wire/SampleRequest` makes a `WireError` of. @internal */
export const fromJson = (json: Record<string, unknown>): FullSamplingParams => {
  const number = (key: string): number | undefined => {
    const value = json[key] ?? undefined
    if (value === undefined || typeof value === "number") return value
    throw new Malformed(`sampling_params.${key} is no number`)
  }
  const { stop } = json
  const seed = typeof json["seed"] === "bigint" ? json["seed"] : number("seed")
  if (stop !== undefined && stop !== null && !isText(stop) && !isList(stop, isText) && !isList(stop, isToken)) {
    throw new Malformed("sampling_params.stop is neither text, a list of texts nor a list of tokens")
  }
  const params = {
    maxTokens: number("max_tokens"),
    seed,
    stop: stop ?? undefined,
    temperature: number("temperature") ?? 1,
    topK: number("top_k") ?? -1,
    topP: number("top_p") ?? 1
  }
  const wrong = problem(params)
  if (wrong !== undefined) throw new Malformed(`sampling_params: ${wrong.field} ${wrong.problem}`)
  return params
}

const stopBytes = (values: ReadonlyArray<string> | ReadonlyArray<number>): Uint8Array => {
  const writer = new BinaryWriter()
  if (isList(values, isToken)) {
    if (values.length > 0) {
      writer.tag(1, WireType.LengthDelimited).fork()
      for (const token of values) writer.int32(token)
      writer.join()
    }
  } else for (const text of values) writer.tag(1, WireType.LengthDelimited).string(text)
  return writer.finish()
}

/** As protobuf. A list of stops without any counts as one of tokens. */
export const encode = ({ maxTokens, seed, stop, temperature, topK, topP }: SamplingParams): Uint8Array => {
  const writer = new BinaryWriter()
  if (maxTokens !== undefined) writer.tag(1, WireType.Varint).int32(maxTokens)
  if (seed !== undefined) writer.tag(2, WireType.Varint).uint64(BigInt.asUintN(64, BigInt(seed)))
  if (temperature !== undefined) writer.tag(3, WireType.Bit32).float(temperature)
  if (topK !== undefined) writer.tag(4, WireType.Varint).int32(topK)
  if (topP !== undefined) writer.tag(5, WireType.Bit32).float(topP)
  if (stop !== undefined) {
    const values = typeof stop === "string" ? [stop] : stop
    writer.tag(isList(values, isToken) ? 7 : 6, WireType.LengthDelimited).bytes(stopBytes(values))
  }
  return writer.finish()
}

/** A seed that is safe as a number is one. */
const narrow = (seed: bigint): number | bigint => (seed <= Number.MAX_SAFE_INTEGER ? Number(seed) : seed)

const readStops = (bytes: Uint8Array, text: boolean): ReadonlyArray<string> | ReadonlyArray<number> => {
  const reader = new BinaryReader(bytes)
  const texts: Array<string> = []
  const tokens: Array<number> = []
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag()
    if (field !== 1) reader.skip(type, field)
    else if (text && type === WireType.LengthDelimited) texts.push(reader.string())
    else if (!text && type === WireType.Varint) tokens.push(reader.int32())
    else if (!text && type === WireType.LengthDelimited) {
      const end = reader.uint32() + reader.pos
      if (end > reader.len) throw new Malformed("its stops are cut off")
      while (reader.pos < end) tokens.push(reader.int32())
    } else throw new Malformed(`its stops are in the wire type ${type}`)
  }
  return text ? texts : tokens
}

const wireTypes = [undefined, WireType.Varint, WireType.Varint, WireType.Bit32, WireType.Varint, WireType.Bit32]

/** From protobuf. Floats have 32 bits there. */
export const decode = (bytes: Uint8Array): Effect.Effect<SamplingParams, WireError> =>
  Effect.try({
    try: () => {
      const reader = new BinaryReader(bytes)
      const params: { -readonly [Key in keyof SamplingParams]: SamplingParams[Key] } = {}
      while (reader.pos < reader.len) {
        const [field, type] = reader.tag()
        if (field > 7) {
          reader.skip(type, field)
          continue
        }
        if (type !== (wireTypes[field] ?? WireType.LengthDelimited)) {
          throw new Malformed(`its field ${field} has the wire type ${type}`)
        }
        if (field === 1) params.maxTokens = reader.int32()
        else if (field === 2) params.seed = narrow(BigInt(reader.uint64()))
        else if (field === 3) params.temperature = reader.float()
        else if (field === 4) params.topK = reader.int32()
        else if (field === 5) params.topP = reader.float()
        else params.stop = readStops(reader.bytes(), field === 6)
      }
      return params
    },
    catch: (cause) =>
      new WireError({ what: "sampling parameters", problem: cause instanceof Error ? cause.message : String(cause) })
  })
