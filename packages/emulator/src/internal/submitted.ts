/** What a submission is answered with: the promise of a result. */
import type { Future } from "./futures.ts"
import { type Audit, json, type Reply } from "./reply.ts"

/** Clients of later versions want a name for every sequence of a sample before there is one. */
const sequenceIds = ({ id, place: { samples } }: Future) =>
  samples === undefined
    ? {}
    : { sample_sequence_ids: Array.from({ length: samples }, (_, sample) => `${id}:${sample}`) }

export const submitted = (future: Future, audit: Audit, dropped: boolean): Reply => {
  const body = { request_id: future.id, model_id: future.place.modelId, ...sequenceIds(future) }
  return json(200, body, { audit, dropped })
}
