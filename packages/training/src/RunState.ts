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
import type * as Schema from "effect/Schema"
import * as Snapshot from "./internal/snapshot.ts"
import type * as Records from "./JournalRecord.ts"

type StepRecord = typeof Records.Step.Type
type IncidentRecord = typeof Records.Incident.Type
type VerifiedRecord = typeof Records.Verified.Type
type SaveRecord = typeof Records.Save.Type
type Metrics = Readonly<Record<string, number>>

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
  /** Saves of their own that have not been settled, by name. */
  readonly saves: ReadonlyMap<string, SaveRecord>
  /** Metrics of the steps whose save has not been settled. */
  readonly metrics: ReadonlyMap<number, Metrics>
  /** An evaluation has begun and not ended: what it has sent is not known. */
  readonly evaluating: boolean
}

/** What a step has gathered. */
export interface SpooledState {
  /** The attempt whose model it was gathered with. */
  readonly attempt: number
  /** All steps before it in that attempt are known to have been applied; else no later attempt may use it. */
  readonly clean: boolean
  /** Name to digest. */
  readonly digests: Readonly<Record<string, string>>
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
  /** Steps whose batch is left out, and why. */
  readonly skipped: ReadonlyMap<number, string>
  /** What steps have gathered, by step. */
  readonly spooled: ReadonlyMap<number, SpooledState>
  /** What evaluations of the present lineage have found, by the number of steps applied. */
  readonly evaluations: ReadonlyMap<number, Metrics>
  /** Paths that are never deleted. */
  readonly pinned: ReadonlySet<string>
  /** When the server drops a checkpoint, in milliseconds since the epoch, by path; those that it keeps for ever are not in it. */
  readonly expires: ReadonlyMap<string, number>
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
  skipped: new Map(),
  spooled: new Map(),
  evaluations: new Map(),
  pinned: new Set(),
  expires: new Map(),
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
            steps: new Map(),
            saves: new Map(),
            metrics: new Map(),
            evaluating: false
          }
        ],
        terminal: undefined,
        paused: undefined,
        evaluations: new Map([...state.evaluations].filter(([step]) => step <= record.fromStep)),
        spooled: [...state.spooled.values()].every(({ clean }) => clean)
          ? state.spooled
          : new Map([...state.spooled].filter(([, { clean }]) => clean)),
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
      return committed(state, record)
    case "Skipped":
      return state.skipped.has(record.step)
        ? state
        : { ...state, skipped: new Map(state.skipped).set(record.step, record.why) }
    case "Spooled": {
      const committed = state.attempts.findLast(({ attempt }) => attempt === record.attempt)?.committed ?? 0
      return {
        ...state,
        spooled: new Map(state.spooled).set(record.step, {
          attempt: record.attempt,
          clean: record.step <= committed,
          digests: { ...state.spooled.get(record.step)?.digests, [record.name]: record.digest }
        })
      }
    }
    case "Unspooled": {
      const spooled = new Map(state.spooled)
      spooled.delete(record.step)
      return { ...state, spooled }
    }
    case "Evaluating":
      return inAttempt(state, record.attempt, (attempt) => ({ ...attempt, evaluating: true }))
    case "Evaluated":
      return inAttempt(
        { ...state, evaluations: new Map(state.evaluations).set(record.step, record.metrics) },
        record.attempt,
        (attempt) => ({ ...attempt, evaluating: false, nextSeq: record.nextSeq })
      )
    case "Save":
      return inAttempt(state, record.attempt, (attempt) => ({
        ...attempt,
        saves: new Map(attempt.saves).set(record.name, record)
      }))
    case "Verified":
      return settled({
        ...state,
        verified: [...state.verified.filter((other) => other.path !== record.path), record],
        expires: withExpiry(state.expires, record.path, record.expiresAt ?? null)
      })
    case "Renewed":
      return { ...state, expires: withExpiry(state.expires, record.path, record.expiresAt) }
    case "Pinned": {
      const pinned = new Set(state.pinned)
      if (record.pinned) pinned.add(record.path)
      else pinned.delete(record.path)
      return { ...state, pinned }
    }
    case "SaveDead":
      return settled({ ...state, saveDead: new Set(state.saveDead).add(record.name) })
    case "Proven":
      return { ...state, proven: new Set(state.proven).add(record.path) }
    case "Incident":
      return inAttempt(
        state.incidents.some((other) => other.id === record.id)
          ? state
          : {
              ...state,
              incidents: [...state.incidents, record],
              // An attempt that ended because the service paused the run says nothing against the run.
              attemptsWithoutProgress: Math.max(0, state.attemptsWithoutProgress - (record.cause === "paused" ? 1 : 0))
            },
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
    case "Snapshot":
      return Snapshot.restore(record.state) ?? state
  }
}

/** As JSON, for a `Snapshot`. */
export const save = (state: RunState): Schema.Json => Snapshot.save(state)

const withExpiry = (expires: ReadonlyMap<string, number>, path: string, at: number | null) => {
  if (at === null && !expires.has(path)) return expires
  const next = new Map(expires)
  if (at === null) next.delete(path)
  else next.set(path, at)
  return next
}

const inAttempt = (state: RunState, number: number, change: (attempt: AttemptState) => AttemptState): RunState => {
  const index = state.attempts.findLastIndex((attempt) => attempt.attempt === number)
  const attempt = state.attempts[index]
  return attempt === undefined ? state : { ...state, attempts: state.attempts.with(index, change(attempt)) }
}

/** Only the next step in order counts: results are believed strictly by sequence. */
const committed = (
  state: RunState,
  { attempt: number, metrics, step }: { readonly attempt: number; readonly step: number; readonly metrics: Metrics }
): RunState => {
  const attempt = state.attempts.findLast((attempt) => attempt.attempt === number)
  if (attempt === undefined || attempt.committed !== step) return state
  const progress = step + 1 > state.highWater ? { ...state, highWater: step + 1, attemptsWithoutProgress: 0 } : state
  const next = {
    ...progress,
    proven: provenBy(attempt, progress.proven),
    spooled: cleared(progress.spooled, number, step + 1)
  }
  const saved = attempt.steps.get(step)?.save != null
  return inAttempt(next, number, (attempt) =>
    prune(next, {
      ...attempt,
      committed: step + 1,
      metrics: saved ? new Map(attempt.metrics).set(step, metrics) : attempt.metrics
    })
  )
}

/** What was gathered for a step before the step below it had come back stands on firm ground once that one has. */
const cleared = (spooled: RunState["spooled"], attempt: number, step: number): RunState["spooled"] => {
  const gathered = spooled.get(step)
  return gathered === undefined || gathered.clean || gathered.attempt !== attempt
    ? spooled
    : new Map(spooled).set(step, { ...gathered, clean: true })
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
  const isSettled = (name: string) => !isOpen(state, { save: { name } })
  return {
    ...attempt,
    steps,
    saves: [...attempt.saves.keys()].some(isSettled)
      ? new Map([...attempt.saves].filter(([name]) => !isSettled(name)))
      : attempt.saves,
    metrics:
      attempt.metrics.size === 0 ? attempt.metrics : new Map([...attempt.metrics].filter(([step]) => steps.has(step)))
  }
}

const isOpen = (state: RunState, { save }: { readonly save: { readonly name: string } | null }): boolean =>
  save !== null && !state.saveDead.has(save.name) && !state.verified.some((record) => record.name === save.name)

/**
 * The step at which the run left its course, if a checkpoint holds it. That stays so for good, whatever ends the attempts that
 * come after: where its batch was left out since, or only taken again, the checkpoint is of another lineage (DV2).
 */
export const astray = (state: RunState, record: { readonly attempt: number; readonly step: number }) =>
  state.incidents.find(({ attempt, onset }) => onset !== undefined && record.attempt <= attempt && record.step > onset)
    ?.onset

/**
 * The checkpoints that a restore may use: verified, not quarantined, not marked for deletion, from before any divergence. In the
 * order of `verified`.
 */
export const candidates = (state: RunState): ReadonlyArray<VerifiedRecord> =>
  state.verified.filter(
    (record) =>
      !state.quarantined.has(record.path) && !state.deleted.has(record.path) && astray(state, record) === undefined
  )

/** A save that may be believed if the server lists it. */
export interface Adoptable {
  readonly name: string
  readonly binds: number
  readonly userState: Schema.Json
  readonly metrics: Metrics | undefined
}

/**
 * The saves of the newest attempt whose answer was never read and which may still be believed if the server lists them: the
 * attempt was not found poisoned or diverged, and every step up to the save is known to have been committed (RP11).
 */
export const adoptable = (state: RunState): ReadonlyArray<Adoptable> => {
  const last = state.attempts.at(-1)
  if (last === undefined || !last.started || last.closed?.cause === "poisoned" || last.closed?.cause === "diverged") {
    return []
  }
  const behindSteps = [...last.steps.values()].flatMap((record): ReadonlyArray<Adoptable> =>
    record.save !== null && isOpen(state, record)
      ? [{ ...record.save, userState: record.userState, metrics: last.metrics.get(record.step) }]
      : []
  )
  const ownSaves = [...last.saves.values()].filter((record) => isOpen(state, { save: record }))
  return [
    ...behindSteps,
    ...ownSaves.map(({ binds, name, userState }) => ({ name, binds, userState, metrics: undefined }))
  ].filter(({ binds }) => binds <= last.committed)
}

/** What is known of the quality of a checkpoint: the metrics of its last step, and those of an evaluation at that place. */
export const metricsOf = (state: RunState, record: VerifiedRecord): Metrics | undefined => {
  const evaluated = state.evaluations.get(record.step)
  return record.metrics === undefined && evaluated === undefined ? undefined : { ...record.metrics, ...evaluated }
}
