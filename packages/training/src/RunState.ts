/**
 * What the records of a journal add up to. Guarantees:
 *
 * - **FS1** `fold` is total: no sequence of records makes it throw, a prefix of a journal least of all;
 * - **FS2** dropping lazy records from the end never adds a checkpoint to `candidates` or a save to `adoptable`;
 * - **FS3** states are values: `apply` returns a new one and leaves the old one as it was.
 *
 * The cost of a step does not grow with the length of the run: of each attempt only the steps are kept that still matter,
 * namely those that are not committed, the newest that is, and those whose save has not been settled.
 */
import type * as Records from "./JournalRecord.ts"

type StepRecord = typeof Records.Step.Type
type IncidentRecord = typeof Records.Incident.Type
type VerifiedRecord = typeof Records.Verified.Type

/** One server-side model that carries, or carried, the run. */
export interface AttemptState {
  readonly attempt: number
  /** The checkpoint it was loaded from; `null` is the base model. */
  readonly from: string | null
  readonly fromStep: number
  readonly trainingRunId: string | undefined
  readonly sessionId: string | undefined
  /** The first free place in the model's sequence when it was ready. */
  readonly nextSeq: number | undefined
  /** Loaded and checked: steps may have been sent. */
  readonly started: boolean
  /** The incident that ended it. */
  readonly closed: IncidentRecord | undefined
  /** Steps applied as far as the client knows: all below this number, without a gap. */
  readonly committed: number
  /** Intents that still matter, by step. */
  readonly steps: ReadonlyMap<number, StepRecord>
}

export interface RunState {
  readonly run: typeof Records.Run.Type | undefined
  readonly epoch: typeof Records.Epoch.Type | undefined
  /** In the order in which they began. */
  readonly attempts: ReadonlyArray<AttemptState>
  /** In the order in which they were verified, those quarantined or deleted since included. */
  readonly verified: ReadonlyArray<VerifiedRecord>
  readonly proven: ReadonlySet<string>
  /** Path to why. */
  readonly quarantined: ReadonlyMap<string, string>
  /** Names of saves that are never believed again. */
  readonly saveDead: ReadonlySet<string>
  /** Paths that were deleted, or may have been. */
  readonly deleted: ReadonlySet<string>
  readonly incidents: ReadonlyArray<IncidentRecord>
  /** Why the run waits, if it does. */
  readonly paused: string | undefined
  readonly terminal: typeof Records.Completed.Type | typeof Records.Ended.Type | undefined
  /** The most steps that any attempt has committed. */
  readonly highWater: number
  /** Attempts begun since `highWater` last rose. A checkpoint found bad gives one back, once. */
  readonly attemptsWithoutProgress: number
}

export const empty: RunState = {
  run: undefined,
  epoch: undefined,
  attempts: [],
  verified: [],
  proven: new Set(),
  quarantined: new Map(),
  saveDead: new Set(),
  deleted: new Set(),
  incidents: [],
  paused: undefined,
  terminal: undefined,
  highWater: 0,
  attemptsWithoutProgress: 0
}

/** The state after `records`, oldest first. */
export const fold = (records: Iterable<Records.JournalRecord>): RunState => {
  let state = empty
  for (const record of records) state = apply(state, record)
  return state
}

/** The state after one more record. A record about an attempt that nobody has begun changes nothing. */
export const apply = (state: RunState, record: Records.JournalRecord): RunState => {
  switch (record._tag) {
    case "Run":
      return { ...state, run: record }
    case "Epoch":
      return { ...state, epoch: record }
    case "Attempt":
      return {
        ...state,
        attempts: [
          ...state.attempts.filter((attempt) => attempt.attempt !== record.attempt),
          {
            attempt: record.attempt,
            from: record.from,
            fromStep: record.fromStep,
            trainingRunId: undefined,
            sessionId: undefined,
            nextSeq: undefined,
            started: false,
            closed: undefined,
            committed: record.fromStep,
            steps: new Map()
          }
        ],
        terminal: undefined,
        attemptsWithoutProgress: state.attemptsWithoutProgress + 1
      }
    case "Created":
      return inAttempt(state, record.attempt, (attempt) => ({
        ...attempt,
        trainingRunId: record.trainingRunId,
        sessionId: record.sessionId
      }))
    case "Started":
      return inAttempt(state, record.attempt, (attempt) => ({
        ...attempt,
        trainingRunId: record.trainingRunId,
        sessionId: record.sessionId,
        nextSeq: record.nextSeq,
        started: true
      }))
    case "Reattached":
      return state
    case "Paused":
      return { ...state, paused: record.cause }
    case "Resumed":
      return { ...state, paused: undefined }
    case "Step":
      return inAttempt(state, record.attempt, (attempt) => ({
        ...attempt,
        steps: new Map(attempt.steps).set(record.step, record)
      }))
    case "Commit":
      return committed(state, record.attempt, record.step)
    case "Verified":
      return settled({
        ...state,
        verified: [...state.verified.filter((other) => other.path !== record.path), record]
      })
    case "SaveDead":
      return settled({ ...state, saveDead: new Set(state.saveDead).add(record.name) })
    case "Proven":
      return { ...state, proven: new Set(state.proven).add(record.path) }
    case "Incident":
      return inAttempt(
        state.incidents.some((other) => other.id === record.id)
          ? state
          : { ...state, incidents: [...state.incidents, record] },
        record.attempt,
        (attempt) => (attempt.closed === undefined ? { ...attempt, closed: record } : attempt)
      )
    case "Quarantine":
      return state.quarantined.has(record.path)
        ? state
        : {
            ...state,
            quarantined: new Map(state.quarantined).set(record.path, record.why),
            attemptsWithoutProgress: Math.max(0, state.attemptsWithoutProgress - 1)
          }
    case "DeleteIntent":
    case "Deleted":
      return { ...state, deleted: new Set(state.deleted).add(record.path) }
    case "Completed":
      return { ...state, terminal: record }
    case "Ended":
      // Whoever insists on going on after an end gets a full set of attempts again.
      return { ...state, terminal: record, attemptsWithoutProgress: 0 }
  }
}

const inAttempt = (state: RunState, number: number, change: (attempt: AttemptState) => AttemptState): RunState => {
  const index = state.attempts.findLastIndex((attempt) => attempt.attempt === number)
  const attempt = state.attempts[index]
  return attempt === undefined ? state : { ...state, attempts: state.attempts.with(index, change(attempt)) }
}

/** Only the next step in order counts: results are believed strictly by sequence. */
const committed = (state: RunState, number: number, step: number): RunState => {
  const attempt = state.attempts.findLast((attempt) => attempt.attempt === number)
  if (attempt === undefined || attempt.committed !== step) return state
  const progress = step + 1 > state.highWater ? { ...state, highWater: step + 1, attemptsWithoutProgress: 0 } : state
  const next = { ...progress, proven: provenBy(attempt, progress.proven) }
  return inAttempt(next, number, (attempt) => prune(next, { ...attempt, committed: step + 1 }))
}

/** An attempt that has committed a step is the best proof that what it was loaded from can carry a run. */
const provenBy = (attempt: AttemptState, proven: ReadonlySet<string>): ReadonlySet<string> =>
  attempt.from === null || proven.has(attempt.from) ? proven : new Set(proven).add(attempt.from)

const settled = (state: RunState): RunState => ({
  ...state,
  attempts: state.attempts.map((attempt) => prune(state, attempt))
})

const prune = (state: RunState, attempt: AttemptState): AttemptState => {
  const steps = new Map<number, StepRecord>()
  for (const [step, record] of attempt.steps) {
    if (step >= attempt.committed - 1 || isOpen(state, record)) steps.set(step, record)
  }
  return { ...attempt, steps }
}

const isOpen = (state: RunState, { save }: StepRecord): boolean =>
  save !== null && !state.saveDead.has(save.name) && !state.verified.some((record) => record.name === save.name)

/** The checkpoints that a restore may use: verified, not quarantined, not marked for deletion. In the order of `verified`. */
export const candidates = (state: RunState): ReadonlyArray<VerifiedRecord> =>
  state.verified.filter((record) => !state.quarantined.has(record.path) && !state.deleted.has(record.path))

/**
 * The saves of the newest attempt whose answer was never read and which may still be believed if the server lists them: the
 * attempt was not found poisoned, and every step up to the save is known to have been committed (RP11).
 */
export const adoptable = (state: RunState): ReadonlyArray<{ readonly name: string; readonly binds: number }> => {
  const last = state.attempts.at(-1)
  if (last === undefined || !last.started || last.closed?.cause === "poisoned") return []
  return [...last.steps.values()].flatMap((record) =>
    record.save !== null && isOpen(state, record) && record.save.binds <= last.committed ? [record.save] : []
  )
}
