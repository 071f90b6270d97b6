/** The armed faults of a running emulator: who counts what, and what has fired. */
import type { FiredFault } from "../EmulatorControl.ts"
import type * as FaultPlan from "../FaultPlan.ts"
import type { Of } from "./fault.ts"

interface Armed {
  readonly fault: FaultPlan.Fault
  /** What this fault has counted since it was armed. */
  seen: number
  fired: number
  readonly since: number
}

export interface Site {
  readonly modelId?: string
  readonly samplerId?: string
  readonly seqId?: number
}

type Tag = FaultPlan.Fault["_tag"]

/** Faults that fire at the n-th thing of one kind. */
type Counted = Extract<FaultPlan.Fault, { readonly operation: string; readonly occurrence: number }>

const timesOf = (fault: FaultPlan.Fault) =>
  fault._tag === "HttpBurst" ? fault.count : "times" in fault ? (fault.times ?? 1) : 1

/** What one accepted operation suffers. */
export interface OperationFaults {
  readonly lose: boolean
  readonly delay: Of<"DelayResult"> | undefined
  readonly expire: boolean
  readonly forget: boolean
  readonly softFail: Of<"SoftFail"> | undefined
  readonly poison: Of<"Poison"> | undefined
  readonly spoil: Of<"SpoilResult"> | undefined
}

/** What a reply suffers on its way, besides being lost. */
export interface ReplyFaults {
  readonly slow: Of<"SlowResponse"> | undefined
  readonly trickle: Of<"Trickle"> | undefined
  readonly mangle: Of<"MangleResponse"> | undefined
}

export class Faults {
  private readonly armed: Array<Armed> = []
  readonly fired: Array<FiredFault> = []
  private readonly now: () => number

  constructor(plan: FaultPlan.FaultPlan, now: () => number) {
    this.now = now
    this.arm(plan)
  }

  /** Occurrences are counted from here on. */
  arm(plan: FaultPlan.FaultPlan): void {
    for (const fault of plan.faults) this.armed.push({ fault, seen: 0, fired: 0, since: this.now() })
  }

  private *of<T extends Tag>(tag: T): Generator<Armed & { readonly fault: Of<T> }> {
    for (const armed of this.armed) {
      // The tag has just been compared.
      if (armed.fault._tag === tag) yield armed as Armed & { readonly fault: Of<T> }
    }
  }

  private fire(armed: Armed, site: Site): void {
    armed.fired++
    this.fired.push({ fault: armed.fault, at: this.now(), ...site })
  }

  private occurrence<T extends Counted["_tag"]>(tag: T, operation: FaultPlan.Request, site: Site): Of<T> | undefined {
    let hit: Of<T> | undefined
    for (const armed of this.of(tag)) {
      // The compiler does not see that every tag of Counted names a member of Counted.
      const fault = armed.fault as Counted
      if (fault.operation !== operation && fault.operation !== "any") continue
      armed.seen++
      if (armed.seen < fault.occurrence || armed.fired >= timesOf(fault) || hit !== undefined) continue
      this.fire(armed, site)
      hit = armed.fault
    }
    return hit
  }

  /** Whether anything gets through now. */
  get isCutOff(): boolean {
    for (const armed of this.of("Partition")) {
      const { afterMillis, millis } = armed.fault
      const since = this.now() - armed.since - afterMillis
      if (since < 0 || since >= millis) continue
      if (armed.fired === 0) this.fire(armed, {})
      return true
    }
    return false
  }

  /** What keeps everything waiting now, and for how long. */
  get paused(): { readonly queueState: Of<"Pause">["queueState"]; readonly forMillis: number } | undefined {
    for (const armed of this.of("Pause")) {
      const { afterMillis, millis, queueState } = armed.fault
      const since = this.now() - armed.since - afterMillis
      if (since < 0 || since >= millis) continue
      if (armed.fired === 0) this.fire(armed, {})
      return { queueState, forMillis: millis - since }
    }
    return undefined
  }

  /** Counts a request as it comes in; a burst answers it instead of its handler, a drop leaves it without an answer. */
  request(request: FaultPlan.Request): Of<"HttpBurst"> | "drop" | undefined {
    const refusal = this.occurrence("HttpBurst", request, {})
    if (refusal !== undefined) return refusal
    return this.occurrence("DropRequest", request, {}) === undefined ? undefined : "drop"
  }

  /** Counts a reply that is about to leave and says whether it is lost on its way. */
  loses(request: FaultPlan.Request, site: Site): boolean {
    return this.occurrence("LoseResponse", request, site) !== undefined
  }

  /** Counts a reply that is about to leave. */
  reply(request: FaultPlan.Request, site: Site): ReplyFaults {
    return {
      slow: this.occurrence("SlowResponse", request, site),
      trickle: this.occurrence("Trickle", request, site),
      mangle: this.occurrence("MangleResponse", request, site)
    }
  }

  /** Counts a newly accepted operation. */
  operation(operation: FaultPlan.Operation, site: Site): OperationFaults {
    return {
      lose: this.loses(operation, site),
      delay: this.occurrence("DelayResult", operation, site),
      expire: this.occurrence("ExpireFuture", operation, site) !== undefined,
      forget: this.occurrence("ForgetFuture", operation, site) !== undefined,
      softFail: this.occurrence("SoftFail", operation, site),
      poison: this.occurrence("Poison", operation, site),
      spoil: this.occurrence("SpoilResult", operation, site)
    }
  }

  /** What is added to the total of a listing. */
  total(list: "training_runs" | "checkpoints"): number {
    return this.occurrence("WrongTotal", list, {})?.by ?? 0
  }

  /** What happens to the model that is about to apply this step of its lineage. */
  step(step: number, site: Site): "corrupt" | "corruptUnflagged" | "loseSession" | undefined {
    for (const armed of this.of("Corrupt")) {
      if (armed.fault.atStep !== step || armed.fired >= timesOf(armed.fault)) continue
      this.fire(armed, site)
      return armed.fault.unflagged === true ? "corruptUnflagged" : "corrupt"
    }
    for (const armed of this.of("LoseSession")) {
      if (armed.fault.atStep !== step || armed.fired >= timesOf(armed.fault)) continue
      this.fire(armed, site)
      return "loseSession"
    }
    return undefined
  }

  /** What happens to the checkpoint that is being saved with this many steps applied. */
  save(step: number, site: Site): Of<"DamageCheckpoint">["damage"] | undefined {
    let hit: Of<"DamageCheckpoint">["damage"] | undefined
    for (const armed of this.of("DamageCheckpoint")) {
      armed.seen++
      const { at, damage } = armed.fault
      const here = "step" in at ? at.step === step : armed.seen >= at.save
      if (!here || armed.fired >= timesOf(armed.fault) || hit !== undefined) continue
      this.fire(armed, site)
      hit = damage
    }
    return hit
  }

  /** Fires the timed faults of a plan one by one; the caller keeps the time. */
  timed(fault: Of<"CorruptAfter"> | Of<"LoseSessionAfter">, site: Site): void {
    for (const armed of this.of(fault._tag)) {
      if (armed.fault !== fault || armed.fired > 0) continue
      this.fire(armed, site)
      return
    }
  }
}
