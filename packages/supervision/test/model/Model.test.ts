import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect } from "effect"
import { cases } from "./Cases.ts"
import { type Difference, compare, overlap } from "./Driver.ts"
import { type Case, Random, generate, smaller } from "./Generator.ts"
import * as Model from "./Model.ts"
import * as Trace from "./Trace.ts"
import * as View from "./View.ts"

/** `SUPERVISION_SEED` and `SUPERVISION_RUNS` (sequences per part) make another run of all this. */
const seed = Number(process.env["SUPERVISION_SEED"] ?? 20_251)
const runs = Number(process.env["SUPERVISION_RUNS"] ?? 1200)
const shrinkingSteps = 3000

type Property = (one: Case) => Effect.Effect<Difference | undefined>

const survived =
  (property: Property): Property =>
  (one) =>
    Effect.catchCause(property(one), (cause) =>
      Effect.succeed({ after: "start", what: "a defect", expected: "none", actual: Cause.pretty(cause) })
    )

/** Takes away from a failing case what it does not need in order to fail. */
const shrink = (property: Property, known: Case, difference: Difference) =>
  Effect.gen(function* () {
    let best = { found: known, difference }
    for (let left = shrinkingSteps, shrunk = true; shrunk;) {
      shrunk = false
      for (const found of smaller(best.found)) {
        if (left-- <= 0) return best
        const difference = yield* property(found)
        if (difference === undefined) continue
        best = { found, difference }
        shrunk = true
        break
      }
    }
    return best
  })

const report = (title: string, { difference, found }: { readonly difference: Difference; readonly found: Case }) => {
  const { actual, after, expected, what } = difference
  const action = typeof after === "number" ? `action ${after}, ${JSON.stringify(found.actions[after])}` : `the ${after}`
  return [
    `${title}: "${what}" is wrong after ${action}.`,
    `expected ${JSON.stringify(expected)}`,
    `but got  ${JSON.stringify(actual)}`,
    "To run this one again, put it into the list in Cases.ts:",
    JSON.stringify(found)
  ].join("\n")
}

/** Fails with the smallest case that can be found for the first one that fails. */
const check = (property: Property, title: string, all: Iterable<Case>) =>
  Effect.gen(function* () {
    for (const found of all) {
      const difference = yield* survived(property)(found)
      if (difference === undefined) continue
      assert.fail(report(title, yield* shrink(survived(property), found, difference)))
    }
  })

function* draw(part: number, wild: boolean): Generator<Case> {
  for (let index = 0; index < runs; index++) yield generate(new Random(seed + part * 1_000_003 + index), wild)
}

const parts = Array.from({ length: 10 }, (_, index) => index + 1)

process.stdout.write(`supervision against its model: SUPERVISION_SEED=${seed}, ${runs} sequences per part\n`)

describe("a supervision tree does what the model does", () => {
  for (const part of parts) {
    const title = `part ${part} of the sequences of seed ${seed}`
    it.effect(title, () => check(compare, title, draw(part, false)))
  }
})

describe("whatever overlaps, one incarnation lives at a time, every request is answered, and nothing is left", () => {
  for (const part of parts.slice(0, 3)) {
    const title = `part ${part} of the overlapping sequences of seed ${seed}`
    it.effect(title, () => check(overlap, title, draw(part, true)))
  }
})

describe("sequences that once told the tree from the model", () => {
  for (const [title, known] of Object.entries(cases)) {
    it.effect(title, () => check(compare, title, [known]))
    it.effect(`${title}, overlapping`, () => check(overlap, title, [known]))
  }
})

describe("the sequences", () => {
  it("reach every answer, every end and every status, and seldom what the model leaves open", () => {
    const seen = new Map<string, number>()
    const see = (what: string) => seen.set(what, (seen.get(what) ?? 0) + 1)
    const followed = (one: Case) => {
      let [state, expected] = Model.boot(Model.initial(one.tree, one.scripts))
      see(`boot ${expected.answer}`)
      for (const action of expected.answer === "ok" ? one.actions : []) {
        if (state.ambiguous || !View.applicable(state, action)) continue
        ;[state, expected] = Model.step(state, action)
        if ("in" in action) see(`${action.do} ${expected.answer}`)
        for (const line of Trace.lines(expected.trace)) see(line.replace(/^([=])\w+|(?<=^.)\w+$/u, "$1"))
        for (const { spec, status } of Model.everyone(state.root)) see(`${spec.kind} ${status}`)
      }
      see(state.ambiguous ? "ambiguous" : "laid down")
    }
    for (let index = 0; index < 4000; index++) followed(generate(new Random(seed + index)))
    const missing = expectedOften.filter((what) => (seen.get(what) ?? 0) < 10)
    assert.deepStrictEqual(missing, [], JSON.stringify(Object.fromEntries(seen)))
    assert.isBelow((seen.get("ambiguous") ?? 0) / 4000, 0.1)
  })
})

const expectedOften = [
  ...["ok", "StartFailed"].map((answer) => `boot ${answer}`),
  ...["ok", "StartFailed", "Ignored", "AlreadyStarted", "AlreadyPresent", "MaxChildren", "InvalidRequest"].map(
    (answer) => `start ${answer}`
  ),
  ...["ok", "NotFound"].map((answer) => `terminate ${answer}`),
  ...["ok", "NotFound", "Running", "Restarting", "StartFailed", "Ignored"].map((answer) => `restart ${answer}`),
  ...["ok", "NotFound", "Running", "Restarting"].map((answer) => `delete ${answer}`),
  ...["start", "terminate", "restart", "delete", "reconfigure"].map((verb) => `${verb} SupervisorStopped`),
  "look ok",
  "look NotFound",
  "reconfigure ok",
  ...["Shutdown", "Killed", "Crash MaxRestartsExceeded", "Crash ChildGivenUp"].map((reason) => `= ${reason}`),
  "+",
  "-",
  "!",
  "~",
  ...["actor", "effect", "supervisor"].flatMap((kind) =>
    ["running", "waiting", "stopped"].map((status) => `${kind} ${status}`)
  )
]
