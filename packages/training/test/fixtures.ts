import type { JournalRecord } from "../src/JournalRecord.ts"

export const header: JournalRecord = {
  _tag: "Run",
  journalId: "journal-1",
  run: "run",
  runHash: "0a1b2c3d",
  config: { learningRate: { kind: "constant", rate: 1e-4 } },
  configDigest: "c0",
  dataDigest: "d0",
  programVersion: "1",
  totalSteps: 6,
  seed: 0,
  capability: "D0",
  model: { baseModel: "emulator/byte-lm", rank: 8, seed: 0, trainMlp: true, trainAttn: true, trainUnembed: true }
}

export const attempt = (attempt: number, from: string | null = null, fromStep = 0): JournalRecord => ({
  _tag: "Attempt",
  attempt,
  from,
  fromStep,
  incident: null
})

export const started = (attempt: number): JournalRecord => ({
  _tag: "Started",
  attempt,
  trainingRunId: `model-${attempt}`,
  sessionId: "session",
  nextSeq: 1
})

export const step = (attempt: number, step: number, save: string | null = null): JournalRecord => ({
  _tag: "Step",
  attempt,
  step,
  ops: [
    { kind: "forward_backward", seqIds: [2 * step + 1], digest: `f${step}` },
    { kind: "optim_step", seqIds: [2 * step + 2], digest: `o${step}` }
  ],
  save: save === null ? null : { name: save, binds: step + 1 },
  userState: null
})

export const commit = (attempt: number, step: number, metrics: Record<string, number> = { loss: 1 / (step + 1) }) =>
  ({ _tag: "Commit", attempt, step, metrics }) satisfies JournalRecord

export const pathOf = (attempt: number, name: string) => `tinker://model-${attempt}/weights/${name}`

export const verified = (attempt: number, step: number, name: string): JournalRecord => ({
  _tag: "Verified",
  path: pathOf(attempt, name),
  name,
  attempt,
  step,
  sizeBytes: 4096,
  userState: null
})

export const incident = (
  attempt: number,
  step: number,
  cause: "poisoned" | "session_lost" = "poisoned"
): JournalRecord => ({
  _tag: "Incident",
  id: `inc-${attempt}`,
  attempt,
  cause,
  detail: "seen by a test",
  step
})

/** A run of six steps that loses its first model after step 4 and is finished by a second one. */
export const history: ReadonlyArray<JournalRecord> = [
  header,
  attempt(1),
  { _tag: "Created", attempt: 1, trainingRunId: "model-1", sessionId: "session" },
  started(1),
  step(1, 0),
  commit(1, 0),
  step(1, 1, "s2"),
  commit(1, 1),
  verified(1, 2, "s2"),
  step(1, 2),
  commit(1, 2, { loss: Number.NaN, "grad norm ✓": Number.POSITIVE_INFINITY }),
  step(1, 3, "s4"),
  commit(1, 3),
  incident(1, 4),
  attempt(2, pathOf(1, "s2"), 2),
  { _tag: "Created", attempt: 2, trainingRunId: "model-2", sessionId: "session" },
  started(2),
  step(2, 2),
  commit(2, 2),
  step(2, 3, "s4b"),
  commit(2, 3),
  verified(2, 4, "s4b"),
  { _tag: "Proven", path: pathOf(2, "s4b") },
  { _tag: "DeleteIntent", path: pathOf(1, "s2") },
  { _tag: "Deleted", path: pathOf(1, "s2") },
  step(2, 4),
  commit(2, 4),
  step(2, 5, "s6"),
  commit(2, 5),
  verified(2, 6, "s6"),
  { _tag: "Completed", path: pathOf(2, "s6"), step: 6, metrics: { loss: 0.1 } }
]
