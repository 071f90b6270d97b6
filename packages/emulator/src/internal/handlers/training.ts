/** Forward, backward, step: the operations that train. */
import type { Datum } from "@tinkex/tinker/wire/Datum"
import * as Headers from "@tinkex/tinker/wire/Headers"
import * as Json from "@tinkex/tinker/wire/Json"
import * as Protobuf from "@tinkex/tinker/wire/Protobuf"
import type { WireError } from "@tinkex/tinker/wire/WireError"
import * as Zstd from "@tinkex/tinker/wire/Zstd"
import * as Effect from "effect/Effect"
import * as Digest from "../digest.ts"
import * as Execution from "../execution.ts"
import * as Operations from "../operations.ts"
import * as Polls from "../polls.ts"
import { type ApiRequest, maxBodyBytes, refused, type Refused, type Reply } from "../reply.ts"
import type { World } from "../world.ts"
import { jsonBody } from "./body.ts"
import * as LegacyJson from "./legacyJson.ts"
import { refusingItsNumber } from "./salvage.ts"
import type { Handler } from "./session.ts"

const unprocessable = (error: WireError) => refused(422, error.message)

const content = (request: ApiRequest): Effect.Effect<Uint8Array, Refused> => {
  const encoding = request.header("content-encoding")
  if (encoding === undefined || encoding === "identity") return Effect.succeed(request.body)
  return encoding === "zstd"
    ? Effect.mapError(Zstd.decompress(request.body, { maxBytes: maxBodyBytes }), unprocessable)
    : Effect.fail(refused(415, `Content-Encoding ${encoding} is not understood; send zstd or none`))
}

interface PassRequest {
  readonly modelId: string
  readonly seqId: number
  readonly data: ReadonlyArray<Datum>
  readonly lossFn: string
  readonly lossFnConfig: Protobuf.LossFnConfig
  readonly forwardOnly: boolean
}

/** Number 0 is the request that made the model, and what a protobuf without a number reads as. */
export const reservedSeqId = refused(422, "seq_id is 0 or missing; the first operation of a model has 1")

const submitPass = (world: World, user: string, pass: PassRequest): Effect.Effect<Reply, Refused> => {
  const { data, forwardOnly, lossFn, lossFnConfig, modelId, seqId } = pass
  return Effect.flatMap(world.model(modelId, user), (model) => {
    if (seqId < 1) return Effect.fail(reservedSeqId)
    if (data.length === 0)
      return Execution.refuse(world, model, seqId, refused(400, "data is empty; send at least one datum"))
    const operation = forwardOnly ? "forward" : "forward_backward"
    const digests = Digest.ofData(data, lossFn, lossFnConfig)
    return Execution.submit(world, model, {
      operation,
      seqId,
      digest: Digest.ofParts([operation, digests]),
      work: Operations.pass(world, { data, lossFn, lossFnConfig }, digests, forwardOnly)
    })
  })
}

const isProtobuf = (request: ApiRequest) => request.header("content-type")?.includes(Headers.protobuf) === true

export const forwardBackward: Handler = (world, request) =>
  Effect.flatMap(content(request), (bytes) => {
    const binary = Effect.suspend(() => Protobuf.decodeForwardBackwardRequest(bytes))
    const read = isProtobuf(request)
      ? refusingItsNumber(world, request, "protobuf", bytes)(Effect.mapError(binary, unprocessable))
      : refusingItsNumber(world, request, "json", bytes)(LegacyJson.read(bytes, false))
    return Effect.flatMap(read, (pass) => submitPass(world, request.user, pass))
  })

export const forward: Handler = (world, request) =>
  Effect.flatMap(content(request), (bytes) => {
    const read = refusingItsNumber(world, request, "json", bytes)(LegacyJson.read(bytes, true))
    return Effect.flatMap(read, (pass) => submitPass(world, request.user, pass))
  })

const readOptimStep = jsonBody(Json.OptimStepRequest)
export const optimStep: Handler = (world, request) =>
  Effect.flatMap(refusingItsNumber(world, request, "json")(readOptimStep(request)), (body) =>
    Effect.flatMap(world.model(body.model_id, request.user), (model) =>
      body.seq_id < 1
        ? Effect.fail(reservedSeqId)
        : Execution.submit(world, model, {
            operation: "optim_step",
            seqId: body.seq_id,
            digest: Digest.ofJson(["optim_step", body.adam_params]),
            work: Operations.optimStep(world, body.adam_params)
          })
    )
  )

const readRetrieve = jsonBody(Json.RetrieveFutureRequest)
export const retrieveFuture: Handler = (world, request) =>
  Effect.flatMap(readRetrieve(request), (body) =>
    Polls.retrieve(world, body.request_id, request.user, {
      protobuf: request.header("accept")?.includes(Headers.protobuf) === true,
      metadataOnly: body.allow_metadata_only
    })
  )
