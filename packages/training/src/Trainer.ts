/**
 * Trains a model and carries on, whatever fails in between.
 *
 * Running the same program again continues the run: everything that is needed stands in the `Journal`. What it guarantees
 * (the numbers are those of `docs/guarantees.md`):
 *
 * - **P1** the final state has applied every step exactly once, in order: an attempt that may have missed or repeated a step is
 *   given up, and the run goes on from a checkpoint that holds a known prefix;
 * - **P2** against a deterministic server the final weights, optimizer state and metrics are those of a run that never failed;
 * - **P3** one process at a time advances a run: a second one is refused by the journal's lease, and a copy of the journal by
 *   what the server shows of the run;
 * - **P5** every end is a result or a typed error, and every wait has a deadline or a watcher;
 * - **P7** without a guard (`@tinkex/recovery`) a failed attempt ends the program. Running it again is then what recovers. The
 *   one exception is a loss that diverges where the run's own policy says what to do.
 *
 * What it does not promise: that a server which says it restored the optimizer did so, or that damage which neither the flag
 * nor a failing request, nor a probe, shows is found.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { RestClient } from "@tinkex/tinker/RestClient"
import type { ServiceClient } from "@tinkex/tinker/ServiceClient"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type { AdamParams } from "@tinkex/tinker/TrainingClient"
import type { Dataset } from "./Dataset.ts"
import * as Run from "./internal/run.ts"
import * as Settings from "./internal/settings.ts"
import type { Journal } from "./Journal.ts"
import { JournalError } from "./JournalError.ts"
import * as LearningRate from "./LearningRate.ts"
import type { Evaluation, RunOptions } from "./RunOptions.ts"
import type { RunReport } from "./RunReport.ts"
import * as SeededRandom from "./SeededRandom.ts"
import type { StepClient } from "./StepClient.ts"
import { TrainingError } from "./TrainingError.ts"

/** What to fine-tune, on what, and how. */
export interface FineTuneOptions<E = never, R = never> extends RunOptions {
  /** The batches, for example `Dataset.jsonl("data.jsonl", { batchSize: 32 })`. */
  readonly data: Effect.Effect<Dataset, E, R>
  /** A function of the step, or a constant. */
  readonly learningRate: LearningRate.LearningRate | number
  /** Adam's other parameters; the server's defaults where absent. */
  readonly adam?: Omit<AdamParams, "learningRate"> | undefined
  /** A look at the model from time to time. Default: none. */
  readonly evaluate?: Evaluation<null, E, R> | undefined
}

/** What a step is given. */
export interface StepContext<S> {
  /** The model. What is asked of it is written down first, sent in order, and counts only once all of it has come back. */
  readonly client: StepClient
  /** From 0. */
  readonly step: number
  /** Drawn from the run's seed and the step. */
  readonly random: SeededRandom.SeededRandom
  /** What the step before has returned, also after a restore. */
  readonly state: S
  /**
   * Does something once in the life of the run: what it gives is kept, durably, under the step and `name`, and is what a repetition of the step
   * gets. For rollouts, and for all else that would not come out the same again. It is dropped once no restore can come back to
   * the step; and, with `pipelining` above 0, by a failure before the steps below it had come back, since nobody can know then
   * what model it was gathered with.
   */
  readonly once: <A, I, E2 = never, R2 = never>(
    name: string,
    schema: Schema.Codec<A, I>,
    effect: Effect.Effect<A, E2, R2>
  ) => Effect.Effect<A, E2 | TrainingError, R2>
}

/** What a step gives. */
export interface StepResult<S> {
  readonly state: S
  /** Beside those of the service, which they win over. */
  readonly metrics?: Readonly<Record<string, number>> | undefined
}

/** A loop of your own. */
export interface LoopOptions<S, I, E = never, R = never> extends RunOptions {
  /**
   * Steps sent ahead of the oldest one that is not committed, 0 to 8. Default 0: a step sees a model that has all steps before
   * it, and what it gathers is never lost.
   */
  readonly pipelining?: number | undefined
  /** How many steps there are, or the first step that is not taken any more: `(step) => step === 500`. Asked before the run, not during it. */
  readonly until: number | ((step: number) => boolean)
  /** How the state of the loop is written down. Default: there is none. */
  readonly state: Schema.Codec<S, I>
  readonly initial: S
  /**
   * One step: any number of passes and one `optimStep`. It has to be a function of what it is given and of what `once` keeps; then
   * a repeated step is the same step. It may await results, which ends the overlap with the next step.
   */
  readonly step: (context: StepContext<S>) => Effect.Effect<StepResult<S>, E | TinkerError | TrainingError, R>
  /** A look at the model from time to time. Default: none. */
  readonly evaluate?: Evaluation<S, E, R> | undefined
  /** Whatever else decides the result, as data; a changed one is refused. Default `{}`. */
  readonly config?: { readonly [name: string]: Schema.Json } | undefined
  /** Where epochs end, for policies that save there. */
  readonly stepsPerEpoch?: number | undefined
}

const atEnd = <E, R>(
  program: Effect.Effect<RunReport, E | TrainingError | JournalError | TinkerError, R>
): Effect.Effect<RunReport, E | TrainingError, R> =>
  Effect.catch(program, (error): Effect.Effect<never, E | TrainingError> => {
    if (error instanceof JournalError) return Effect.fail(TrainingError.fromJournal(error))
    if (isTinkerError(error)) return Effect.fail(TrainingError.service(error))
    return Effect.fail(error)
  })

const isTinkerError = (error: unknown): error is TinkerError =>
  typeof error === "object" && error !== null && "_tag" in error && error._tag === "TinkerError"

/**
 * Runs supervised fine-tuning to its last step, from wherever the journal says it stands.
 *
 * Fails with `TrainingError`; a reason whose `isRetryable` is true means that running the program again may go further.
 *
 * ```ts ignore
 * Trainer.fineTune({
 *   name: "support-tone-v3",
 *   model: { baseModel: "Qwen/Qwen3-8B", rank: 32 },
 *   data: Dataset.jsonl("data.jsonl", { batchSize: 32, epochs: 3, shuffleSeed: 7 }),
 *   learningRate: LearningRate.linear({ peak: 1e-4, warmup: 20 })
 * })
 * ```
 */
export const fineTune = Effect.fn("Trainer.fineTune")(function* <E = never, R = never>(
  options: FineTuneOptions<E, R>
): Effect.fn.Return<RunReport, TrainingError | E, R | Journal | ServiceClient | RestClient> {
  const settings = yield* Settings.validate(options, options.evaluate !== undefined)
  const learningRate =
    typeof options.learningRate === "number" ? LearningRate.constant(options.learningRate) : options.learningRate
  if (learningRate.invalid !== undefined) return yield* new TrainingError({ reason: learningRate.invalid })
  const { adam = {}, evaluate } = options
  if (evaluate !== undefined) yield* checkEvery(evaluate.every)
  yield* Effect.annotateCurrentSpan({ "tinkex.run": settings.name })
  const dataset = yield* options.data
  const { cursor, totalSteps } = dataset
  const batchAt = (step: number, position: Schema.Json) =>
    cursor === undefined
      ? Effect.map(dataset.batch(step), (batch) => ({ batch, position: null }))
      : cursor.next(position)
  return yield* Run.run<E, R>(settings, {
    config: {
      learningRate: learningRate.config,
      adam: Object.fromEntries(Object.entries(adam).map(([name, value]) => [name, value ?? null])),
      data: dataset.config
    },
    dataDigest: dataset.digest,
    totalSteps,
    initial: cursor === undefined ? null : cursor.initial,
    // A step that follows from its number alone is made ready while others are computed.
    lookAhead: 4,
    stepsPerEpoch: dataset.stepsPerEpoch,
    take: Effect.fnUntraced(function* ({ client, state, step }) {
      const { batch, position } = yield* batchAt(step, state)
      yield* client.forwardBackward(batch, { loss: "cross_entropy" })
      yield* client.optimStep({ ...adam, learningRate: learningRate.at(step, totalSteps) })
      return { state: position, metrics: {} }
    }),
    evaluation:
      evaluate === undefined
        ? undefined
        : {
            every: evaluate.every,
            run: ({ client, steps }) => evaluate.run({ client, step: steps, state: null })
          },
    rehearsal: cursor === undefined ? Effect.map(dataset.batch(0), (batch) => batch.slice(0, 1)) : Effect.succeed([])
  }).pipe(Effect.scoped, atEnd)
})

const checkEvery = (every: number) =>
  Number.isSafeInteger(every) && every >= 1
    ? Effect.void
    : Effect.fail(TrainingError.invalidOption("evaluate.every", every, "must be a whole number above 0"))

/** No run is longer. */
const most = 10_000_000

const stepsOf = (until: number | ((step: number) => boolean)): number => {
  if (typeof until === "number") return until
  for (let step = 1; step <= most; step++) if (until(step)) return step
  return Number.POSITIVE_INFINITY
}

/**
 * Runs a loop of your own to its last step, from wherever the journal says it stands: reinforcement learning, distillation,
 * whatever a step can express. Its state travels with every checkpoint; what `once` has gathered before a failure is neither
 * gathered nor trained on twice.
 *
 * Fails with `TrainingError` and with the errors of the step, except for those of the service, which are the run's to deal with.
 *
 * ```ts ignore
 * Trainer.loop({
 *   name: "rl-math",
 *   model: { baseModel: "Qwen/Qwen3-8B", rank: 32 },
 *   until: 500,
 *   state: Schema.Struct({ seen: Schema.Int }),
 *   initial: { seen: 0 },
 *   step: ({ client, once, random, state }) =>
 *     Effect.gen(function* () {
 *       const groups = yield* once("rollouts", Groups, rollouts(client, random))
 *       yield* client.forwardBackward(toData(groups), { loss: "importance_sampling" })
 *       yield* client.optimStep({ learningRate: 4e-5 })
 *       return { state: { seen: state.seen + groups.length }, metrics: { reward: rewardOf(groups) } }
 *     })
 * })
 * ```
 */
export const loop = Effect.fn("Trainer.loop")(function* <S, I, E = never, R = never>(
  options: LoopOptions<S, I, E, R>
): Effect.fn.Return<RunReport, TrainingError | E, R | Journal | ServiceClient | RestClient> {
  const settings = yield* Settings.validate(
    { ...options, pipelining: options.pipelining ?? 0 },
    options.evaluate !== undefined
  )
  const totalSteps = stepsOf(options.until)
  if (!Number.isSafeInteger(totalSteps) || totalSteps < 1) {
    return yield* TrainingError.invalidOption("until", totalSteps, "must come to a whole number of steps above 0")
  }
  const { evaluate } = options
  if (evaluate !== undefined) yield* checkEvery(evaluate.every)
  yield* Effect.annotateCurrentSpan({ "tinkex.run": settings.name })
  const codec = Schema.toCodecJson(options.state)
  const encode = (state: S) => Effect.orDie(Schema.encodeEffect(codec)(state))
  const decode = (state: Schema.Json) => Effect.orDie(Schema.decodeEffect(codec)(state))
  return yield* Run.run<E, R>(settings, {
    config: options.config ?? {},
    dataDigest: "loop",
    totalSteps,
    initial: yield* encode(options.initial),
    lookAhead: 1,
    stepsPerEpoch: options.stepsPerEpoch,
    take: Effect.fnUntraced(function* ({ client, state, step }, spooling) {
      const result = yield* options.step({
        client,
        step,
        random: SeededRandom.make(settings.model.seed, step),
        state: yield* decode(state),
        once: (name, schema, effect) => once(spooling, step, name, schema, effect)
      })
      return { state: yield* encode(result.state), metrics: result.metrics ?? {} }
    }),
    evaluation:
      evaluate === undefined
        ? undefined
        : {
            every: evaluate.every,
            run: ({ client, state, steps }) =>
              Effect.flatMap(decode(state), (state) => evaluate.run({ client, step: steps, state }))
          },
    rehearsal: Effect.succeed([])
  }).pipe(Effect.scoped, atEnd)
})

const once = Effect.fnUntraced(function* <A, I, E, R>(
  spooling: Run.Spooling,
  step: number,
  name: string,
  schema: Schema.Codec<A, I>,
  effect: Effect.Effect<A, E, R>
): Effect.fn.Return<A, E | TrainingError, R> {
  const codec = Schema.fromJsonString(Schema.toCodecJson(schema))
  const failed = (error: JournalError) => TrainingError.fromJournal(error)
  const kept = yield* Effect.mapError(spooling.get(step, name), failed)
  // What was kept in another form, by another version of the program, is gathered anew.
  const known = Option.flatMap(kept, Schema.decodeOption(codec))
  if (Option.isSome(known)) return known.value
  const gathered = yield* effect
  const text = yield* Effect.orDie(Schema.encodeEffect(codec)(gathered))
  yield* Effect.mapError(spooling.put(step, name, text), failed)
  return gathered
})
