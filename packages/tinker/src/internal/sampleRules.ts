/** What can be known to be wrong with a request for samples before it is sent, and what with its answer. */
import * as Result from "effect/Result"
import type { SampleOptions, SampleResponse } from "../SamplingClient.ts"
import type { ModelInput } from "../wire/Datum.ts"
import * as SamplingParams from "../wire/SamplingParams.ts"
import type { Breach } from "./mediaRules.ts"
import * as PromptRules from "./promptRules.ts"

/** What no service can take, by the name of the argument. */
export const breach = (prompt: ModelInput, options: SampleOptions): Breach | undefined => {
  const { numSamples, promptLogprobs, promptLogprobsLastN, targetPromptLogprobs: targets } = options
  const tokens = PromptRules.tokensOf(prompt)
  if (numSamples !== undefined && !(PromptRules.isCount(numSamples) && numSamples > 0)) {
    return { field: "numSamples", problem: `is ${numSamples} and must be a whole number above 0` }
  }
  for (const field of ["topkPromptLogprobs", "topkSampleLogprobs", "promptAltTokensK"] as const) {
    const value = options[field]
    if (value !== undefined && !PromptRules.isCount(value)) {
      return { field, problem: `is ${value} and must be a whole number, 0 or more` }
    }
  }
  if (promptLogprobsLastN !== undefined) {
    const field = "promptLogprobsLastN"
    if (promptLogprobs !== true) return { field, problem: "needs promptLogprobs: true" }
    const most = (tokens ?? Number.POSITIVE_INFINITY) - 1
    if (!(PromptRules.isCount(promptLogprobsLastN) && promptLogprobsLastN > 0 && promptLogprobsLastN <= most)) {
      const problem = `is ${promptLogprobsLastN} and must be a whole number from 1 to one less than the prompt has tokens`
      return { field, problem }
    }
  }
  if (targets !== undefined) {
    const field = "targetPromptLogprobs"
    const rows = targets.shape[0]
    if (targets.dtype !== "int64") return { field, problem: `has the dtype ${targets.dtype} and must be int64` }
    if (targets.shape.length !== 2 || (tokens !== undefined && rows !== tokens - 1)) {
      const wanted = `[${tokens === undefined ? "places - 1" : tokens - 1}, K]`
      return { field, problem: `has the shape [${targets.shape.join(", ")}] and must have ${wanted}` }
    }
  }
  return SamplingParams.problem(options) ?? PromptRules.breach(prompt)
}

/** The answer with everything that was asked for, or what is wrong with it. */
export const complete = (
  prompt: ModelInput,
  given: SampleOptions,
  response: SampleResponse
): Result.Result<SampleResponse, string> => {
  const { sequences } = response
  const { numSamples = 1, promptLogprobsLastN } = given
  const refuse = (problem: string) => Result.fail(problem)
  if (sequences.length !== numSamples) {
    return refuse(`holds ${sequences.length} samples, and ${numSamples} were asked for`)
  }
  const { targetPromptLogprobs: wanted } = given
  const targets = response.targetPromptLogprobs
  if (wanted !== undefined && targets?.shape.join() !== wanted.shape.join()) {
    return refuse("lacks the logprobs of the targets, or has them in another shape")
  }
  if (Number(given.promptAltTokensK) > 0 && response.promptAltTokens?.tokens.shape[1] !== given.promptAltTokensK) {
    return refuse("lacks the tokens that were to be drawn in the prompt's places")
  }
  if (given.promptLogprobs !== true) return Result.succeed(response)
  const known = PromptRules.tokensOf(prompt)
  // Some servers leave out the first token's, which has none: then a prompt of one token has none at all.
  const found = response.promptLogprobs ?? (known === 1 ? [] : undefined)
  if (found === undefined) return refuse("lacks the prompt's logprobs")
  const tokens = known ?? found.length
  const all = found.length === tokens - 1 ? [undefined, ...found] : found
  if (all.length !== tokens) return refuse(`holds ${all.length} logprobs for a prompt of ${tokens} tokens`)
  if (
    promptLogprobsLastN !== undefined &&
    all.slice(0, tokens - promptLogprobsLastN).some((one) => one !== undefined)
  ) {
    return refuse(`holds more than the last ${promptLogprobsLastN} logprobs: the service does not know that wish`)
  }
  return Result.succeed(all === response.promptLogprobs ? response : { ...response, promptLogprobs: all })
}
