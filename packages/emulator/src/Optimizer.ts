/**
 * Adam as the wire contract has it: bias correction, decoupled weight decay (Loshchilov and Hutter, "Decoupled Weight Decay
 * Regularization"), clipping by the global norm.
 *
 * Guaranteed: a step applies the accumulated gradients once and clears them; a refused step changes nothing; the same state and
 * parameters give the same bits. Not guaranteed: finite weights. A learning rate that blows up blows up, as on the real service.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"

import {
  clearGradients,
  factorGradientsOf,
  InvalidParameter,
  type LanguageModel,
  LanguageModelError
} from "./LanguageModel.ts"

/** Parameters of one step. @since 0.1.0 */
export interface AdamParams {
  /** Default 1e-4. */
  readonly learningRate?: number | undefined
  /** Decay of the first moment, 0 or more and below 1. Default 0.9. */
  readonly beta1?: number | undefined
  /** Decay of the second moment, 0 or more and below 1. Default 0.95. */
  readonly beta2?: number | undefined
  /** Added to the root of the second moment. Default 1e-12. */
  readonly eps?: number | undefined
  /** Fraction of a weight, times the learning rate, that a step takes away. Default 0. */
  readonly weightDecay?: number | undefined
  /** Greatest Euclidean norm of all gradients together; 0 (the default) is no limit. */
  readonly gradClipNorm?: number | undefined
}

/** What a step did. @since 0.1.0 */
export interface StepMetrics {
  /** Number of steps taken so far, this one included. */
  readonly step: number
  readonly learningRate: number
  /** Euclidean norm of all gradients before clipping. */
  readonly gradientNorm: number
  /** What the gradients were multiplied by; 1 without clipping. */
  readonly clipScale: number
}

const invalid = (params: Required<{ readonly [K in keyof AdamParams]: number }>): LanguageModelError | undefined => {
  for (const [field, value] of Object.entries(params)) {
    const isBeta = field.startsWith("beta")
    if (!Number.isFinite(value) || value < 0 || (isBeta && value >= 1) || (field === "eps" && value === 0)) {
      const expected = isBeta
        ? "a number from 0 up to, but not, 1"
        : `a finite number ${field === "eps" ? "above" : "from"} 0`
      return new LanguageModelError({ reason: new InvalidParameter({ field, value: String(value), expected }) })
    }
  }
  return undefined
}

/**
 * Applies the accumulated gradients and clears them. Without any (no `forwardBackward` since the last step) the moments decay and the
 * weights move by what is left of them. Fails with `InvalidParameter`.
 *
 * @since 0.1.0
 */
export const step = (model: LanguageModel, given: AdamParams): Effect.Effect<StepMetrics, LanguageModelError> =>
  Effect.suspend(() => {
    const params = {
      learningRate: given.learningRate ?? 1e-4,
      beta1: given.beta1 ?? 0.9,
      beta2: given.beta2 ?? 0.95,
      eps: given.eps ?? 1e-12,
      weightDecay: given.weightDecay ?? 0,
      gradClipNorm: given.gradClipNorm ?? 0
    }
    const refused = invalid(params)
    if (refused !== undefined) return Effect.fail(refused)
    const { beta1, beta2, eps, gradClipNorm, learningRate } = params
    const gradients = factorGradientsOf(model)
    let squares = 0
    for (const gradient of Object.values(gradients)) {
      for (let i = 0; i < gradient.length; i++) squares += gradient[i]! * gradient[i]!
    }
    const gradientNorm = Math.sqrt(squares)
    const clipScale = gradClipNorm > 0 && gradientNorm > gradClipNorm ? gradClipNorm / gradientNorm : 1
    const t = model.adam.t + 1
    const correction1 = 1 - Math.pow(beta1, t)
    const correction2 = 1 - Math.pow(beta2, t)
    const kept = 1 - learningRate * params.weightDecay
    for (const [name, gradient] of Object.entries(gradients)) {
      const weights = model.factors[name]!
      const m = model.adam.m[name]!
      const v = model.adam.v[name]!
      for (let i = 0; i < gradient.length; i++) {
        const g = gradient[i]! * clipScale
        const mi = beta1 * m[i]! + (1 - beta1) * g
        const vi = beta2 * v[i]! + (1 - beta2) * g * g
        m[i] = mi
        v[i] = vi
        weights[i] = weights[i]! * kept - (learningRate * (mi / correction1)) / (Math.sqrt(vi / correction2) + eps)
      }
    }
    model.adam = { t, m: model.adam.m, v: model.adam.v }
    clearGradients(model)
    return Effect.succeed({ step: t, learningRate, gradientNorm, clipScale })
  })
