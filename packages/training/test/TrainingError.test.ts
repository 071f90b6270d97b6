import { assert, describe, it } from "@effect/vitest"
import { NotFound, RunLost, TinkerError } from "@tinkex/tinker/TinkerError"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as JournalError from "../src/JournalError.ts"
import * as RunState from "../src/RunState.ts"
import { TrainingError, TrainingReason } from "../src/TrainingError.ts"
import { attempt, incident } from "./fixtures.ts"

const journal = (reason: JournalError.JournalReason) =>
  TrainingError.fromJournal(new JournalError.JournalError({ reason }))
const failed = {
  id: "inc-1",
  run: "tone",
  trainingRunId: "model-1",
  cause: "poisoned",
  detail: "the flag is up",
  step: 57
} as const
const path = "tinker://model-1/weights/s50"

/** Each reason, what its message must hold, and whether running again unchanged may help. */
const cases: ReadonlyArray<readonly [TrainingError, ReadonlyArray<string>, boolean]> = [
  [TrainingError.invalidOption("pipelining", 9, "must be 0 to 8"), ["pipelining", "9", "must be 0 to 8"], false],
  [TrainingError.dataInvalid("a.jsonl", 7, "the line is not JSON"), ["a.jsonl, line 7", "not JSON"], false],
  [TrainingError.dataInvalid("a.jsonl", null, "there is no such file"), ["a.jsonl: there is no such file"], false],
  [TrainingError.configChanged("tone", ["rank: 8 -> 16"]), ["tone", "rank: 8 -> 16", "new name", "force"], false],
  [
    TrainingError.runFailed(failed, { chosen: Option.some({ path }) }),
    ["tone", "57", "poisoned", path, "Recovery.layer"],
    true
  ],
  [TrainingError.runFailed(failed, { chosen: Option.none() }), ["go on from the base model"], true],
  [
    TrainingError.recoveryGivenUp(failed, { chosen: Option.some({ path }) }, { tries: 3, detail: "503 busy." }),
    ["tone", "57", "poisoned", "3 tries", "503 busy.", path],
    true
  ],
  [
    TrainingError.recoveryGivenUp(failed, { chosen: Option.none() }, { tries: 1, detail: "503 busy." }),
    ["in 1 try", "goes on from the base model"],
    true
  ],
  [
    TrainingError.diverged("tone", { step: 7, detail: "loss:sum of step 7 is NaN" }, 0, { chosen: Option.none() }),
    ["tone", "step 7 is NaN", "no checkpoint from before", "learning rate", "skip"],
    false
  ],
  [
    TrainingError.diverged("tone", { step: 7, detail: "loss:sum of step 7 is NaN" }, 2, {
      chosen: Option.some({ path })
    }),
    ["after 2 rollbacks", path],
    false
  ],
  [
    TrainingError.foreignJournal({ run: "tone", trainingRunId: "model-9", attempt: 4, epoch: 6, known: 5 }),
    ["tone", "model-9", "attempt 4", "writer 6", "writer 5", "takeOver"],
    false
  ],
  [
    TrainingError.whileRestoring(
      "tone",
      new TinkerError({ reason: new RunLost({ runId: "model-2", detail: "not loaded" }) })
    ),
    ["tone", "model-2", "not loaded", "Run the same program again"],
    true
  ],
  [
    TrainingError.whileRestoring(
      "tone",
      new TinkerError({ reason: new NotFound({ operation: "create", status: 404, detail: "no such model" }) })
    ),
    ["create", "no such model"],
    false
  ],
  [
    TrainingError.ended("tone", { tag: "NoProgress", detail: "Given up." }),
    ["NoProgress", "Given up.", "force"],
    false
  ],
  [
    TrainingError.noCheckpoint("tone", [{ candidate: { path }, reason: "quarantined: it does not load" }]),
    [path, "it does not load"],
    false
  ],
  [TrainingError.noCheckpoint("tone", []), ["none was ever verified"], false],
  [
    TrainingError.noProgress("tone", RunState.fold([attempt(1), incident(1, 0), attempt(2), attempt(3)])),
    ["3 attempts", "step 0", "poisoned (seen by a test)"],
    false
  ],
  [TrainingError.notSaved("tone", 3), ["tone", "3 final saves", "again"], true],
  [
    TrainingError.service(
      new TinkerError({ reason: new NotFound({ operation: "load", status: 404, detail: "gone" }) })
    ),
    ["load", "gone"],
    false
  ],
  [
    journal(new JournalError.LeaseHeld({ run: "tone", owner: { host: "box", pid: 4711 } })),
    ["tone", "4711 on box"],
    true
  ],
  [journal(new JournalError.LeaseHeld({ run: "tone", owner: null })), ["another process"], true],
  [journal(new JournalError.Fenced({ run: "tone", epoch: 3, why: "it was closed" })), ["Writer 3", "closed"], false],
  [
    journal(new JournalError.JournalCorrupt({ path: "/j", offset: 812, record: 6, problem: "its checksum is wrong" })),
    ["/j", "byte 812", "record 6", "checksum"],
    false
  ],
  [
    journal(new JournalError.JournalUnwritable({ path: "/j", operation: "sync", problem: "ENOSPC" })),
    ["sync", "ENOSPC"],
    false
  ],
  [journal(new JournalError.JournalUnreadable({ path: "/j", problem: "EACCES" })), ["/j", "EACCES"], false],
  [
    journal(new JournalError.RunNotFound({ run: "x", where: "./runs", known: ["tone"] })),
    [`"x"`, "./runs", "tone"],
    false
  ]
]

describe("TrainingError", () => {
  for (const [error, parts, retryable] of cases) {
    it.effect(`${error.reason._tag} says what happened, and keeps its meaning in another process`, () =>
      Effect.gen(function* () {
        for (const part of parts) assert.include(error.message, part)
        assert.strictEqual(error.isRetryable, retryable)
        const codec = Schema.toCodecJson(TrainingError)
        const json = JSON.stringify(yield* Schema.encodeEffect(codec)(error))
        const back = yield* Schema.decodeUnknownEffect(codec)(JSON.parse(json))
        assert.strictEqual(back.message, error.message)
        assert.strictEqual(back.isRetryable, retryable)
        assert.strictEqual(back.reason._tag, error.reason._tag)
      })
    )
  }

  it("has a case above for each reason", () => {
    const shown = new Set(cases.map(([error]) => error.reason._tag))
    assert.strictEqual(shown.size, TrainingReason.members.length)
  })
})
