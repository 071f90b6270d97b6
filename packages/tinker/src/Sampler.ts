import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import * as Rest from "./wire/Rest.ts"

const Model = Schema.toType(
  Schema.Struct({
    samplerId: Schema.String,
    baseModel: Schema.String,
    /** The checkpoint that it samples from; none: the base model itself. */
    modelPath: Schema.Option(Schema.String)
  })
)

/** A sampling session as the service knows it. */
export type Sampler = typeof Model.Type

type Wire = typeof Rest.Sampler.Type

/** Codec between the service's JSON and `Sampler`. */
export const Sampler: Schema.Codec<Sampler, typeof Rest.Sampler.Encoded> = Rest.Sampler.pipe(
  Schema.decodeTo(Model, {
    decode: SchemaGetter.transform((wire: Wire): Sampler => ({
      samplerId: wire.sampler_id,
      baseModel: wire.base_model,
      modelPath: Option.fromNullishOr(wire.model_path)
    })),
    encode: SchemaGetter.transform((sampler: Sampler): Wire => ({
      sampler_id: sampler.samplerId,
      base_model: sampler.baseModel,
      ...(Option.isSome(sampler.modelPath) ? { model_path: sampler.modelPath.value } : {})
    }))
  })
)
