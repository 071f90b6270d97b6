import * as Result from "effect/Result"
import * as Dmel from "./Dmel.ts"
import type { TensorData } from "./Tensor.ts"
import { WireError } from "./WireError.ts"

/** A part of a model's input. Images and audio travel as they are; this library does not look inside. */
export type Chunk =
  | { readonly type: "encoded_text"; readonly tokens: ArrayLike<number> }
  | {
      readonly type: "image"
      readonly data: Uint8Array
      readonly format: "png" | "jpeg"
      /** Positions that the image takes; a service may refuse the image where it takes another number of them. */
      readonly expectedTokens?: number | undefined
    }
  | {
      /** An image that the service fetches by itself. For sampling only: a training pass cannot carry it. */
      readonly type: "image_asset_pointer"
      readonly location: string
      readonly format: "png" | "jpeg"
      readonly expectedTokens?: number | undefined
    }
  | { readonly type: "dmel"; readonly dmel: Uint8Array }

export interface ModelInput {
  readonly chunks: ReadonlyArray<Chunk>
}

/** A run of tokens that were part of a sample's prompt, or of the sample itself. */
export interface ProvenanceSpan {
  readonly from: "prompt" | "sampled"
  /** The sample, as sampling named it. */
  readonly sequenceId: string
  /** Where the run begins in that prompt or sample. Default 0. */
  readonly offset?: number | undefined
  /** Tokens of the run. */
  readonly length: number
}

/** Where the tokens of a datum come from: runs one behind the other, from the first position to the last. */
export interface Provenance {
  /** Together as long as the model's input. */
  readonly modelInput: ReadonlyArray<ProvenanceSpan>
  /** Together as long as `target_tokens`. */
  readonly lossFnInputs: ReadonlyArray<ProvenanceSpan>
}

/** One training example: what goes in, and the tensors that its loss needs, each aligned with the input. */
export interface Datum {
  readonly modelInput: ModelInput
  readonly lossFnInputs: Readonly<Record<string, TensorData>>
  /** For losses that look samples up by their name; services older than revision 0.31 of the API pass over it. */
  readonly provenance?: Provenance | undefined
}

/** An input of one chunk of text. */
export const fromTokens = (tokens: ArrayLike<number>): ModelInput => ({ chunks: [{ type: "encoded_text", tokens }] })

/** Positions that a chunk takes in the input; fails for an image that does not say it, and for audio that is none. */
export const chunkLength = (chunk: Chunk): Result.Result<number, WireError> => {
  switch (chunk.type) {
    case "encoded_text":
      return Result.succeed(chunk.tokens.length)
    case "image":
    case "image_asset_pointer":
      return chunk.expectedTokens === undefined
        ? Result.fail(
            new WireError({ what: "an image chunk", problem: "its length is unknown without expectedTokens" })
          )
        : Result.succeed(chunk.expectedTokens)
    case "dmel":
      return Dmel.length(chunk.dmel)
  }
}

const chunkBytes = (chunk: Chunk): number => {
  switch (chunk.type) {
    case "encoded_text":
      return 4 * chunk.tokens.length
    case "image":
      return chunk.data.byteLength
    case "image_asset_pointer":
      return chunk.location.length
    case "dmel":
      return chunk.dmel.byteLength
  }
}

const tensorBytes = (tensor: TensorData): number =>
  tensor.data.length * (tensor.dtype === "int64" ? 8 : 4) +
  (tensor.csr === undefined ? 0 : 8 * (tensor.csr.crow.length + tensor.csr.col.length))

/**
 * What a datum weighs when a batch is cut into requests, by the API's own rule: 4 bytes a token, the raw bytes of other chunks,
 * 8 bytes an int64 and 4 a float32 value, 8 for each index of a sparse one.
 */
export const estimateBytes = (datum: Datum): number => {
  let bytes = 0
  for (const chunk of datum.modelInput.chunks) bytes += chunkBytes(chunk)
  for (const tensor of Object.values(datum.lossFnInputs)) bytes += tensorBytes(tensor)
  return bytes
}
