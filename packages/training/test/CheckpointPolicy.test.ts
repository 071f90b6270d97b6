import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as CheckpointPolicy from "../src/CheckpointPolicy.ts"

const kept = (step: number, rest: Partial<CheckpointPolicy.Kept> = {}): CheckpointPolicy.Kept => ({
  path: `c${step}`,
  step,
  proven: false,
  ...rest
})

const moment = (rest: Partial<CheckpointPolicy.Moment> = {}): CheckpointPolicy.Moment => ({
  steps: 1,
  epochEnded: false,
  epochs: 0,
  tokens: 0,
  elapsed: 0,
  saving: false,
  improved: false,
  saveCost: undefined,
  observed: { millis: 0, failures: 0 },
  ...rest
})

const count = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 5 }))
const flags = Schema.Array(Schema.Boolean).check(Schema.isMaxLength(12))

const checkpoint = Schema.Struct({
  proven: Schema.Boolean,
  mature: Schema.Boolean,
  pinned: Schema.Boolean,
  loss: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 9 }))
})
const checkpoints = Schema.Array(checkpoint).check(Schema.isMaxLength(14))

describe("CheckpointPolicy, when it saves", () => {
  it("R57: after every n-th completed step, and not before the first", () => {
    const policy = CheckpointPolicy.everySteps(3)
    const due = Array.from({ length: 10 }, (_, steps) => steps + 1).filter((steps) => policy.due(moment({ steps })))
    assert.deepStrictEqual(due, [3, 6, 9])
  })

  it("R58: at the end of every n-th epoch", () => {
    const policy = CheckpointPolicy.everyEpochs(2)
    assert.isTrue(policy.due(moment({ epochs: 2, epochEnded: true })))
    assert.isFalse(policy.due(moment({ epochs: 3, epochEnded: true })))
    assert.isFalse(policy.due(moment({ epochs: 2, epochEnded: false })))
  })

  it("after so many tokens, or so much time", () => {
    assert.isFalse(CheckpointPolicy.everyTokens(1000).due(moment({ tokens: 999 })))
    assert.isTrue(CheckpointPolicy.everyTokens(1000).due(moment({ tokens: 1000 })))
    assert.isFalse(CheckpointPolicy.everyTime("1 minute").due(moment({ elapsed: 59_999 })))
    assert.isTrue(CheckpointPolicy.everyTime("1 minute").due(moment({ elapsed: 60_000 })))
  })

  it("without a pause between saves, but one at a time and not faster than the floor", () => {
    const policy = CheckpointPolicy.continuous({ floor: "2 seconds" })
    assert.isTrue(policy.due(moment({ elapsed: 2000 })))
    assert.isFalse(policy.due(moment({ elapsed: 1999 })))
    assert.isFalse(policy.due(moment({ elapsed: 60_000, saving: true })))
  })

  it("R18: at Daly's interval for what saves cost and how often the run fails, as far as both are known", () => {
    const policy = CheckpointPolicy.adaptive({ saveCost: "500 millis", timeBetweenFailures: "6 hours" })
    const interval = (rest: Partial<CheckpointPolicy.Moment>) => {
      for (let seconds = 1; ; seconds++) if (policy.due(moment({ elapsed: seconds * 1000, ...rest }))) return seconds
    }
    assert.strictEqual(interval({}), 147)
    // A failure half an hour in: as if there had been two in six and a half hours.
    assert.strictEqual(interval({ observed: { millis: 1_800_000, failures: 1 } }), 108)
    const often = { observed: { millis: 360_000_000, failures: 200 } }
    assert.strictEqual(interval(often), 44)
    // A save that holds the run up for 14 seconds may take 3.5 % of the time and no more.
    assert.strictEqual(interval({ ...often, saveCost: 14_000 }), 386)
    assert.isFalse(policy.due(moment({ elapsed: 1e9, saving: true })))
  })

  it("R59: when an evaluation improves", () => {
    assert.isTrue(CheckpointPolicy.onImprovement().due(moment({ improved: true })))
    assert.isFalse(CheckpointPolicy.onImprovement().due(moment()))
    assert.isTrue(CheckpointPolicy.onImprovement().needsEvaluation)
    assert.isTrue(CheckpointPolicy.everySteps(50, { saveBest: true }).due(moment({ improved: true })))
  })

  it("what is missing, or no number, improves on nothing; the first value does", () => {
    const improves = CheckpointPolicy.improves
    assert.isTrue(improves(1, [], "min"))
    assert.isTrue(improves(1, [undefined, 2], "min"))
    assert.isFalse(improves(1, [1, 2], "min"))
    assert.isTrue(improves(3, [1, 2], "max"))
    assert.isFalse(improves(undefined, [], "min"))
    assert.strictEqual(CheckpointPolicy.metricOf({ loss: Number.NaN }, "loss"), undefined)
    assert.strictEqual(CheckpointPolicy.metricOf({ "loss:sum": 2 }, "loss"), 2)
  })
})

describe("CheckpointPolicy, what it keeps", () => {
  it.effect.prop(
    "never gives up the newest proven one, anything newer, or one of the last few (CP1, CP2, CP3)",
    [count, flags],
    ([keepLast, proven]) =>
      Effect.sync(() => {
        const all = proven.map((flag, index) => kept(index + 1, { proven: flag }))
        const { deletable, prove } = CheckpointPolicy.everySteps(1, { keepLast }).retain(all)
        const newestProven = Math.max(0, ...all.filter((one) => one.proven).map((one) => one.step))
        for (const one of all.filter(({ path }) => deletable.includes(path))) {
          assert.isBelow(one.step, newestProven)
          assert.isAtMost(one.step, all.length - keepLast)
        }
        if (prove !== undefined) {
          const after = all.map((one) => (one.path === prove ? { ...one, proven: true } : one))
          const next = CheckpointPolicy.everySteps(1, { keepLast }).retain(after)
          assert.isAbove(next.deletable.length, deletable.length, "a proof must be worth its cost")
          assert.strictEqual(next.prove, undefined)
        }
        const order = { ...CheckpointPolicy.everySteps(1, { keepLast }).retain(all.toReversed()) }
        assert.deepStrictEqual(order, { deletable, prove }, "the order of the list does not matter")
      })
  )

  it.effect.prop(
    "R60, R61, R63: keeps the union of the last, the best, every n-th and the pinned, and nothing goes before a newer one is proven and mature (RP13, CP2, CP3)",
    [count, Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 3 })), count, checkpoints],
    ([keepLast, keepBest, keepEvery, made]) =>
      Effect.sync(() => {
        const all = made.map(({ loss, ...rest }, index) => kept(index + 1, { ...rest, metrics: { loss } }))
        const policy = CheckpointPolicy.everySteps(1, { keepLast, keepBest, keepEvery, metric: "loss" })
        const { deletable } = policy.retain(all)
        const sound = Math.max(0, ...all.filter(({ mature, proven }) => proven && mature).map(({ step }) => step))
        const better = (one: CheckpointPolicy.Kept) =>
          all.filter(({ metrics }) => (metrics?.["loss"] ?? 0) < (one.metrics?.["loss"] ?? 0)).length
        for (const one of all) {
          if (!deletable.includes(one.path)) continue
          assert.isBelow(one.step, sound, "a newer one is proven and mature")
          assert.isAtMost(one.step, all.length - keepLast, "not one of the last")
          assert.notStrictEqual(one.pinned, true, "not pinned")
          assert.notStrictEqual(one.step % keepEvery, 0, "not one of every n-th")
          // Of several that are equally good the newest is kept.
          const rank =
            better(one) + all.filter((x) => x.metrics?.["loss"] === one.metrics?.["loss"] && x.step > one.step).length
          assert.isAtLeast(rank, keepBest, "not one of the best")
        }
        // Nothing stays for no reason.
        const needless = all.filter(
          (one) =>
            !deletable.includes(one.path) &&
            one.step < sound &&
            one.step <= all.length - keepLast &&
            one.pinned !== true &&
            one.step % keepEvery !== 0
        )
        assert.isAtMost(needless.length, keepBest)
      })
  )

  it.effect.prop(
    "leaves a sound one, whatever is hidden in the others, as long as proofs tell the truth (T6)",
    [count, flags],
    ([keepLast, sound]) =>
      Effect.sync(() => {
        const policy = CheckpointPolicy.everySteps(1, { keepLast })
        let held: ReadonlyArray<CheckpointPolicy.Kept> = []
        for (const [index] of sound.entries()) {
          held = held.concat(kept(index + 1))
          for (let round = 0; round < 20; round++) {
            const { deletable, prove } = policy.retain(held)
            held = held.filter(({ path }) => !deletable.includes(path))
            if (prove === undefined) break
            const ok = sound[Number(prove.slice(1)) - 1] === true
            // A proof that fails quarantines the checkpoint, which is then no candidate any more.
            held = ok
              ? held.map((one) => (one.path === prove ? { ...one, proven: true } : one))
              : held.filter(({ path }) => path !== prove)
          }
          if (sound.slice(0, index + 1).includes(true)) {
            assert.isTrue(
              held.some(({ step }) => sound[step - 1] === true),
              `none left after ${index + 1}`
            )
          }
        }
      })
  )

  it.effect.prop(
    "T6: with flags that rise late, a checkpoint from before the damage is left as long as they are not later than the horizon",
    [count, Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 4 })), flags],
    ([keepLast, horizon, schedule]) =>
      Effect.sync(() => {
        // One save a tick. The damage begins at some tick and is flagged `horizon` ticks later, which ends the attempt.
        const policy = CheckpointPolicy.everySteps(1, { keepLast })
        const damagedAt = schedule.lastIndexOf(true) + 1
        if (damagedAt === 0) return
        let held: ReadonlyArray<CheckpointPolicy.Kept> = []
        for (let now = 1; now < damagedAt + horizon; now++) {
          held = held
            .concat(kept(now))
            .map(({ path, proven, step }) => ({ path, proven, step, mature: now - step >= horizon }))
          for (let round = 0; round < 20; round++) {
            const { deletable, prove } = policy.retain(held)
            held = held.filter(({ path }) => !deletable.includes(path))
            if (prove === undefined) break
            // What was saved after the damage loads like anything else.
            held = held.map((one) => (one.path === prove ? { ...one, proven: true } : one))
          }
        }
        if (damagedAt > 1) assert.isTrue(held.some(({ step }) => step < damagedAt))
      })
  )

  it.effect.prop(
    "CP2: with a loss that is found to have diverged some steps late, a sound checkpoint from before is left, and not many others",
    [count, Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 6 })), count, flags],
    ([keepLast, hindsight, every, sound]) =>
      Effect.sync(() => {
        const policy = CheckpointPolicy.everySteps(every, { keepLast })
        const isSound = (step: number) => sound[step / every - 1] === true
        let held: ReadonlyArray<CheckpointPolicy.Kept> = []
        let saved = 0
        const last = every * sound.length
        for (let committed = 1; committed <= last; committed++) {
          // Found at the step that comes back now, the first bad one is no older than this; a checkpoint of as many steps has none of it.
          const onset = committed - 1 - hindsight
          const before = Array.from({ length: saved }, (_, i) => every * (i + 1)).filter((step) => step <= onset)
          if (before.some(isSound)) {
            assert.isTrue(
              held.some(({ step }) => step <= onset && isSound(step)),
              `none from before step ${onset}`
            )
          }
          if (committed % every === 0) {
            held = held.concat(kept(committed))
            saved++
            held = held.map((one) => ({ ...one, mature: one.step + hindsight <= committed }))
            for (let round = 0; round < 20; round++) {
              const { deletable, prove } = policy.retain(held)
              held = held.filter(({ path }) => !deletable.includes(path))
              if (prove === undefined) break
              held = isSound(Number(prove.slice(1)))
                ? held.map((one) => (one.path === prove ? { ...one, proven: true } : one))
                : held.filter(({ path }) => path !== prove)
            }
          }
          const bad = sound.slice(0, saved).filter((one) => !one).length
          assert.isAtMost(held.length, keepLast + Math.ceil(hindsight / every) + 1 + bad)
        }
      })
  )

  it("deletes the oldest first and asks for one proof before it deletes", () => {
    const policy = CheckpointPolicy.everySteps(10, { keepLast: 2 })
    assert.deepStrictEqual(policy.retain([kept(10), kept(20)]), { deletable: [], prove: undefined })
    assert.deepStrictEqual(policy.retain([kept(10), kept(20), kept(30), kept(40)]), { deletable: [], prove: "c30" })
    assert.deepStrictEqual(policy.retain([kept(10), kept(20), kept(30, { proven: true }), kept(40)]), {
      deletable: ["c10", "c20"],
      prove: undefined
    })
  })

  it("proves nothing that is not mature, since that would let nothing go, but the newest that is", () => {
    const policy = CheckpointPolicy.everySteps(10, { keepLast: 2 })
    const young = [kept(10), kept(20), kept(30, { mature: false }), kept(40, { mature: false })]
    assert.deepStrictEqual(policy.retain(young), { deletable: [], prove: "c20" })
    assert.deepStrictEqual(policy.retain(young.slice(1)), { deletable: [], prove: undefined }, "nothing would go")
    const proven = [kept(10), kept(20, { proven: true }), ...young.slice(2)]
    assert.deepStrictEqual(policy.retain(proven), { deletable: ["c10"], prove: undefined })
  })
})

describe("CheckpointPolicy, what it refuses", () => {
  it("names an option that makes no sense", () => {
    const problems: ReadonlyArray<readonly [CheckpointPolicy.CheckpointPolicy, string]> = [
      [CheckpointPolicy.everySteps(0), "checkpoints.everySteps must be a whole number above 0, but is 0"],
      [CheckpointPolicy.everyEpochs(1.5), "checkpoints.everyEpochs"],
      [CheckpointPolicy.everyTokens(-1), "checkpoints.everyTokens"],
      [CheckpointPolicy.everyTime("0 seconds"), "checkpoints.everyTime must be a finite time above 0"],
      [CheckpointPolicy.everyTime(Duration.infinity), "checkpoints.everyTime"],
      [CheckpointPolicy.continuous({ floor: 0 }), "checkpoints.floor"],
      [CheckpointPolicy.adaptive({ overhead: 1 }), "checkpoints.overhead"],
      [CheckpointPolicy.adaptive({ saveCost: 0 }), "checkpoints.saveCost"],
      [CheckpointPolicy.everySteps(5, { keepLast: 1.5 }), "checkpoints.keepLast"],
      [CheckpointPolicy.everySteps(5, { keepBest: -1 }), "checkpoints.keepBest"],
      [CheckpointPolicy.everySteps(5, { keepEvery: 0 }), "checkpoints.keepEvery"],
      [CheckpointPolicy.everySteps(5, { keepBest: 1, metric: "" }), "checkpoints.metric"],
      [CheckpointPolicy.everySteps(5, { ttl: "59 minutes" }), "checkpoints.ttl must be at least an hour"]
    ]
    for (const [policy, text] of problems) assert.include(policy.invalid?.message, text)
    assert.strictEqual(CheckpointPolicy.everySteps(1, { keepLast: 1, ttl: "1 hour" }).invalid, undefined)
  })
})

describe("CheckpointPolicy.fromTrainingIr", () => {
  const ir = CheckpointPolicy.fromTrainingIr

  it("R64: takes every strategy by its name, with the defaults of the specification", () => {
    const steps = ir({})
    assert.strictEqual(steps.invalid, undefined)
    assert.isTrue(steps.due(moment({ steps: 100 })))
    assert.isFalse(steps.due(moment({ steps: 99 })))
    assert.isTrue(steps.due(moment({ steps: 99, improved: true })), "save_best is true")
    assert.deepInclude(steps.config, { keepLast: 5, metric: "loss", mode: "min" })
    assert.isTrue(ir({ strategy: "epoch", save_every: 2 }).due(moment({ epochs: 4, epochEnded: true })))
    assert.isTrue(ir({ strategy: "all" }).due(moment({ steps: 7 })))
    assert.isFalse(ir({ strategy: "last", save_best: false }).due(moment({ steps: 100, improved: true })))
    const best = ir({ strategy: "best", best_metric: "accuracy", best_mode: "max" })
    assert.deepStrictEqual(best.best, { metric: "accuracy", mode: "max" })
    assert.isTrue(best.needsEvaluation)
  })

  it("keep_last of 0 or null keeps all; save_every of 0 never saves", () => {
    const all = Array.from({ length: 9 }, (_, i) => kept(i + 1, { proven: true }))
    for (const keep_last of [0, null]) assert.deepStrictEqual(ir({ keep_last }).retain(all).deletable, [])
    assert.strictEqual(ir({ keep_last: 2, save_best: false }).retain(all).deletable.length, 7)
    assert.isFalse(ir({ save_every: 0 }).due(moment({ steps: 100 })))
  })

  it("R65, R66: refuses what a Tinker server cannot honour, with the reason, and takes what it can", () => {
    for (const format of ["pytorch", "gguf", "onnx"]) {
      const { invalid } = ir({ format })
      assert.strictEqual(invalid?.field, "checkpoints.format")
      assert.include(invalid?.message, "Download the archive and convert it")
    }
    assert.strictEqual(ir({ push_to_hub: true, hub_repo: "me/mine" }).invalid?.field, "checkpoints.push_to_hub")
    assert.strictEqual(ir({ format: "safetensors", push_to_hub: false, hub_repo: null }).invalid, undefined)
  })

  it("refuses what is no such policy, by name", () => {
    assert.include(ir({ strategy: "sometimes" }).invalid?.message, "TrainingIR")
    assert.include(ir({ save_evry: 5 }).invalid?.message, "save_evry")
    assert.include(ir("steps").invalid?.message, "TrainingIR")
    assert.include(ir({ save_every: -1 }).invalid?.message, "TrainingIR")
  })
})

describe("CheckpointPolicy.none", () => {
  it("saves and deletes nothing", () => {
    assert.isFalse(CheckpointPolicy.none.due(moment({ steps: 100 })))
    assert.deepStrictEqual(CheckpointPolicy.none.retain([kept(1), kept(2, { proven: true })]).deletable, [])
  })
})
