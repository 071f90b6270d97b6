import * as Result from "effect/Result"

export const lossNames = ["cross_entropy", "importance_sampling", "ppo", "cispo", "dro"] as const

export type LossName = (typeof lossNames)[number]

/** One loss over one datum: its value at target `i` whose log-probability is `p`, and the derivative with respect to `p`. */
export interface TokenLoss {
  readonly value: (p: number, i: number) => number
  readonly slope: (p: number, i: number) => number
}

export type LossInputs = Readonly<Record<string, ArrayLike<number>>>
export type LossConfig = Readonly<Record<string, number>>

const configKeys: Record<LossName, ReadonlyArray<string>> = {
  cross_entropy: [],
  importance_sampling: [],
  ppo: ["clip_low_threshold", "clip_high_threshold"],
  cispo: ["clip_low_threshold", "clip_high_threshold"],
  dro: ["beta"]
}

const clamp = (r: number, low: number, high: number): number => (r < low ? low : r > high ? high : r)

const policyLoss = (
  name: Exclude<LossName, "cross_entropy">,
  config: LossConfig,
  q: ArrayLike<number>,
  a: ArrayLike<number>
): TokenLoss => {
  const ratio = (p: number, i: number) => Math.exp(p - q[i]!)
  switch (name) {
    case "importance_sampling":
      return { value: (p, i) => -ratio(p, i) * a[i]!, slope: (p, i) => -ratio(p, i) * a[i]! }
    case "ppo": {
      const low = config["clip_low_threshold"] ?? 0.8
      const high = config["clip_high_threshold"] ?? 1.2
      return {
        value: (p, i) => -Math.min(ratio(p, i) * a[i]!, clamp(ratio(p, i), low, high) * a[i]!),
        // The clipped branch is constant in p; on a tie the unclipped one is taken.
        slope: (p, i) => {
          const r = ratio(p, i)
          return r * a[i]! <= clamp(r, low, high) * a[i]! ? -r * a[i]! : 0
        }
      }
    }
    case "cispo": {
      const low = config["clip_low_threshold"] ?? 0
      const high = config["clip_high_threshold"] ?? 4
      return {
        value: (p, i) => -clamp(ratio(p, i), low, high) * p * a[i]!,
        // The clipped ratio is a constant here by definition of the loss (stop-gradient).
        slope: (p, i) => -clamp(ratio(p, i), low, high) * a[i]!
      }
    }
    case "dro": {
      const beta = config["beta"] ?? 0.05
      return {
        value: (p, i) => -(p * a[i]! - 0.5 * beta * (p - q[i]!) * (p - q[i]!)),
        slope: (p, i) => -(a[i]! - beta * (p - q[i]!))
      }
    }
  }
}

/** The loss of one datum, or what is wrong with its inputs. */
export const tokenLoss = (
  name: LossName,
  config: LossConfig,
  inputs: LossInputs,
  length: number
): Result.Result<TokenLoss, string> => {
  for (const key of Object.keys(config)) {
    if (!configKeys[name].includes(key)) return Result.fail(`${name} has no setting ${JSON.stringify(key)}`)
    if (!Number.isFinite(config[key])) return Result.fail(`setting ${key} of ${name} is ${config[key]}`)
  }
  const known = name === "cross_entropy" ? ["weights"] : ["logprobs", "advantages"]
  for (const [key, values] of Object.entries(inputs)) {
    if (key === "target_tokens") continue
    if (!known.includes(key)) return Result.fail(`${name} takes no input ${JSON.stringify(key)}`)
    if (values.length !== length) {
      return Result.fail(`${key} has ${values.length} entries for ${length} targets`)
    }
    for (let i = 0; i < values.length; i++) {
      if (!Number.isFinite(values[i])) return Result.fail(`${key}[${i}] is ${values[i]}`)
    }
  }
  if (name === "cross_entropy") {
    const weights = inputs["weights"]
    return Result.succeed(
      weights === undefined
        ? { value: (p) => -p, slope: () => -1 }
        : { value: (p, i) => -p * weights[i]!, slope: (_, i) => -weights[i]! }
    )
  }
  const logprobs = inputs["logprobs"]
  const advantages = inputs["advantages"]
  if (logprobs === undefined || advantages === undefined) {
    return Result.fail(`${name} needs the inputs logprobs and advantages`)
  }
  return Result.succeed(policyLoss(name, config, logprobs, advantages))
}
