/**
 * Everything an emulator holds: sessions, models, runs, promises, armed faults, the audit.
 *
 * - **W1** the operations of one model run one after another, in the order of their numbers, each on its own turn of the
 *   event loop (`execution.ts`);
 * - **W2** a model that is dead stays dead: what waits fails, what comes later fails;
 * - **W3** the flag of a corrupted run is on its record before any of its operations is seen to fail.
 */
import type { Clock } from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import type { CheckpointStore } from "../CheckpointStore.ts"
import type { EmulatorError } from "../EmulatorError.ts"
import type * as FaultPlan from "../FaultPlan.ts"
import { type Catalog, type CheckpointRecord, type Run, storeId } from "./catalog.ts"
import { broken, corrupted, deathOf, noAccess, notLoaded } from "./deaths.ts"
import * as Digest from "./digest.ts"
import { Downloads } from "./downloads.ts"
import type { Model, SamplingSession, Session } from "./entities.ts"
import { Faults } from "./faults.ts"
import { type Future, Futures, type Result } from "./futures.ts"
import { Gate } from "./gate.ts"
import { baseModels } from "./lmShape.ts"
import { Records } from "./records.ts"
import { refused, type Refused } from "./reply.ts"
import type { ResultLog } from "./resultLog.ts"
import { Sequence } from "./sequence.ts"
import type { SessionLog, SessionRecord } from "./sessionLog.ts"
import type { Settings } from "./settings.ts"

const traceLimit = 10_000

const opened = (session: SessionRecord): Session => ({
  ...session,
  lastBeat: session.openedAt,
  expired: false,
  finished: false,
  models: new Map(),
  samplers: new Map(),
  trace: []
})

/** A session of an earlier process. */
const over = (session: SessionRecord): Session => ({ ...opened(session), expired: true })

export class World {
  readonly settings: Settings
  readonly catalog: Catalog
  readonly store: CheckpointStore["Service"]
  readonly faults: Faults
  readonly futures: Futures
  readonly gate: Gate
  readonly sessions = new Map<string, Session>()
  readonly models = new Map<string, Model>()
  readonly samplers = new Map<string, SamplingSession>()
  readonly records: Records
  readonly downloads: Downloads
  /** Samples that are being drawn. */
  drawing = 0
  private readonly built = new Map<string, number>()
  readonly now: () => number
  private readonly scope: Scope.Scope
  private readonly label: string
  private readonly sessionLog: SessionLog

  constructor(options: {
    readonly settings: Settings
    readonly catalog: Catalog
    readonly store: CheckpointStore["Service"]
    readonly plan: FaultPlan.FaultPlan
    readonly clock: Clock
    readonly scope: Scope.Scope
    readonly results: ResultLog
    readonly sessions: SessionLog
  }) {
    this.settings = options.settings
    this.catalog = options.catalog
    this.store = options.store
    this.scope = options.scope
    this.now = () => options.clock.currentTimeMillisUnsafe()
    this.faults = new Faults(options.plan, this.now)
    // Ids of an earlier process must not name things of this one. Without a directory only the time of start tells them apart.
    this.label = options.catalog.boot > 0 ? `${options.catalog.boot}` : this.now().toString(36)
    this.gate = new Gate(options.settings.gate, Digest.ofJson([options.settings.seed, this.label, "secret"]), this.now)
    this.records = new Records(this.now)
    this.downloads = new Downloads(this.gate, this.now)
    this.futures = new Futures(this.label, options.settings.retentionMillis, options.results)
    this.sessionLog = options.sessions
    for (const session of options.sessions.earlier) this.sessions.set(session.id, over(session))
  }

  /** Work that outlives the request that began it; it ends with the emulator. */
  background(work: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.asVoid(Effect.forkIn(work, this.scope))
  }

  /** When a file that is asked for will be there; the first request begins the work. */
  builtAt(id: string): number {
    const known = this.built.get(id)
    if (known !== undefined) return known
    const at = this.now() + this.settings.buildMillis
    this.built.set(id, at)
    return at
  }

  /** The model behind a name that is served. */
  baseOf(name: string): string {
    return this.settings.models.get(name) ?? name
  }

  /** Most tokens that the model behind a name reads. */
  contextOf(name: string): number {
    return baseModels.find((base) => base.name === this.baseOf(name))?.maxContextLength ?? 0
  }

  openSession(options: Pick<Session, "owner" | "projectId" | "userMetadata">): Session {
    const hex = Digest.ofJson([this.settings.seed, this.label, this.sessions.size])
    const id = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join("-")
    const session = opened({ id, ...options, openedAt: this.now() })
    this.describe(session)
    this.sessions.set(id, session)
    return session
  }

  /** Writes down what outlives a session. */
  describe({ id, openedAt, owner, projectId, userMetadata }: Session): void {
    this.sessionLog.append({ id, openedAt, owner, projectId, userMetadata })
  }

  /** The runs that began in a session, oldest first, whatever has become of their models. */
  runsOf(session: Session): ReadonlyArray<Run> {
    return [...this.catalog.runs.values()]
      .filter(({ id }) => id.startsWith(`${session.id}:train:`))
      .toSorted((a, b) => a.createdAt - b.createdAt)
  }

  /** The live session of that id; time may have ended it meanwhile. */
  session(id: string, user: string): Effect.Effect<Session, Refused> {
    const session = this.sessions.get(id)
    if (session !== undefined) this.expireIfDue(session)
    if (session !== undefined && session.owner !== user) return Effect.fail(refused(403, "Invalid session_id"))
    return session === undefined || session.expired
      ? Effect.fail(refused(404, `Session ${id} not found: it expired, or this server never opened it`))
      : Effect.succeed(session)
  }

  openSampler(
    samplingSeqId: number,
    opened: Omit<SamplingSession, "requests" | "clients" | "completions" | "news">
  ): SamplingSession {
    const sampler: SamplingSession = {
      ...opened,
      requests: new Map(),
      clients: 0,
      completions: [],
      news: Deferred.makeUnsafe<void>()
    }
    sampler.session.samplers.set(samplingSeqId, sampler)
    this.samplers.set(sampler.id, sampler)
    return sampler
  }

  expireIfDue(session: Session): void {
    if (this.now() - session.lastBeat >= this.settings.sessionTimeoutMillis) this.expire(session)
  }

  expire(session: Session): void {
    if (session.expired) return
    session.expired = true
    for (const model of session.models.values()) this.unload(model, "its session expired")
    for (const sampler of session.samplers.values()) this.samplers.delete(sampler.id)
  }

  /** Ends what is over by now: sessions, and checkpoints with their files. */
  get sweep(): Effect.Effect<void> {
    return Effect.suspend(() => {
      for (const session of this.sessions.values()) this.expireIfDue(session)
      const now = this.now()
      const over = [...this.catalog.runs.values()].flatMap((run) =>
        run.checkpoints
          .filter(({ expiresAt }) => expiresAt !== null && expiresAt <= now)
          .map((record) => this.removeCheckpoint(run, record))
      )
      return Effect.all(over, { discard: true })
    })
  }

  /** Milliseconds until the next session or checkpoint could expire, or at most as long as a session lives. */
  get nextExpiry(): number {
    let next = this.now() + this.settings.sessionTimeoutMillis
    for (const run of this.catalog.runs.values()) {
      for (const { expiresAt } of run.checkpoints) if (expiresAt !== null) next = Math.min(next, expiresAt)
    }
    for (const session of this.sessions.values()) {
      if (!session.expired) next = Math.min(next, session.lastBeat + this.settings.sessionTimeoutMillis)
    }
    return Math.max(1, next - this.now())
  }

  addModel(session: Session, modelSeqId: number, run: Run): Model {
    const model: Model = {
      id: run.id,
      session,
      run,
      sequence: new Sequence(0),
      trainee: undefined,
      gradients: [],
      datums: 0,
      running: false,
      unloaded: false,
      broken: false,
      tainted: false,
      lastUsed: this.now()
    }
    session.models.set(modelSeqId, model)
    this.models.set(model.id, model)
    this.catalog.runs.set(run.id, run)
    return model
  }

  /** The loaded model of that id. */
  model(id: string, user: string): Effect.Effect<Model, Refused> {
    const model = this.models.get(id)
    if (model !== undefined) this.expireIfDue(model.session)
    if (model !== undefined && model.run.owner !== user) return Effect.fail(noAccess({ modelId: id }))
    return model === undefined || model.unloaded
      ? Effect.fail(refused(400, notLoaded(id), { modelId: id }))
      : Effect.succeed(model)
  }

  /** Ends a model: what it still had to do fails, its memory is given back. */
  unload(model: Model, why: string): void {
    if (model.unloaded) return
    model.unloaded = true
    this.failWaiting(model, `${notLoaded(model.id)}: ${why}`)
    model.trainee = undefined
    model.gradients = []
  }

  /** Flags a model's run corrupted, unless nobody shall see it, and fails what it still had to do. */
  poison(model: Model, unflagged = false): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (deathOf(model) !== undefined) return Effect.void
      if (unflagged) {
        model.broken = true
        this.failWaiting(model, broken(model.id))
        return Effect.void
      }
      model.run.corrupted = true
      this.failWaiting(model, corrupted(model.id))
      return this.persist(model.run)
    })
  }

  private failWaiting(model: Model, error: string): void {
    for (const op of model.sequence.waiting) {
      op.work = undefined
      this.settle(op.future, { _tag: "Failed", error, category: "server" })
    }
  }

  /** Writes a run's description; an emulator that cannot write has no honest way on. */
  persist(run: Run): Effect.Effect<void> {
    return Effect.orDie(this.catalog.persist(run) satisfies Effect.Effect<void, EmulatorError>)
  }

  /** Takes a checkpoint out of the catalog, then its files away. */
  removeCheckpoint(run: Run, record: CheckpointRecord): Effect.Effect<void> {
    run.checkpoints = run.checkpoints.filter((other) => other !== record)
    const remove = this.store.remove(storeId(run.id, record.kind, record.name)).pipe(
      // Nothing was stored where nothing is computed, or the fault plan took it already.
      Effect.catchReason("CheckpointStoreError", "NotFound", () => Effect.void),
      Effect.orDie
    )
    return Effect.andThen(this.persist(run), remove)
  }

  /** The sampling session of that id. */
  sampler(id: string, user: string): Effect.Effect<SamplingSession, Refused> {
    const sampler = this.samplers.get(id)
    if (sampler !== undefined) this.expireIfDue(sampler.session)
    if (sampler !== undefined && sampler.session.owner !== user) return Effect.fail(noAccess({ samplerId: id }))
    return sampler === undefined || sampler.session.expired
      ? Effect.fail(
          refused(404, `Sampling session ${id} not found: its session expired, or this server never opened it`)
        )
      : Effect.succeed(sampler)
  }

  /** Gives a result to those who wait for it, unless they have one. */
  settle(future: Future, result: Result): void {
    if (future.result !== undefined) return
    const now = this.now()
    this.futures.settle(future, result, now)
    const { createdAt, id, operation, place } = future
    const sampler = this.samplers.get(place.samplerId ?? "")
    if (sampler !== undefined && this.settings.api !== "0.25") {
      const seqId = id.slice(sampler.id.length + 1)
      const failed = result._tag === "Failed"
      const size = result._tag === "Output" ? result.protobuf().length : 0
      sampler.completions.push({ requestId: id, seqId, failed, size })
      const { news } = sampler
      sampler.news = Deferred.makeUnsafe<void>()
      Deferred.doneUnsafe(news, Effect.void)
    }
    const session = this.models.get(place.modelId ?? "")?.session ?? sampler?.session
    if (session === undefined || session.trace.length >= traceLimit) return
    const track = place.modelId ?? place.samplerId ?? session.id
    session.trace.push({ name: operation, track, fromMillis: createdAt, toMillis: now })
  }
}
