/** The armed faults of a running emulator: who counts what, and what has fired. */
import type { FiredFault } from "../EmulatorControl.ts"
import type * as FaultPlan from "../FaultPlan.ts"

interface Armed {
  readonly fault: FaultPlan.Fault
  /** What this fault has counted since it was armed. */
  seen: number
  fired: number
}

export interface Site {
  readonly modelId?: string
  readonly samplerId?: string
  readonly seqId?: number
}

type Tag = FaultPlan.Fault["_tag"]
type Of<T extends Tag> = Extract<FaultPlan.Fault, { readonly _tag: T }>

type Counted = Of<"LoseResponse"> | Of<"DelayResult"> | Of<"ExpireFuture"> | Of<"SoftFail">

const timesOf = (fault: FaultPlan.Fault) => ("times" in fault ? (fault.times ?? 1) : 1)

/** What one accepted operation suffers. */
export interface OperationFaults {
  readonly lose: boolean
  readonly delay: Of<"DelayResult"> | undefined
  readonly expire: boolean
  readonly softFail: Of<"SoftFail"> | undefined
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
    for (const fault of plan.faults) this.armed.push({ fault, seen: 0, fired: 0 })
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
      if (fault.operation !== operation) continue
      armed.seen++
      if (armed.seen < fault.occurrence || armed.fired >= timesOf(fault) || hit !== undefined) continue
      this.fire(armed, site)
      hit = armed.fault
    }
    return hit
  }

  /** Counts a request as it comes in; a burst answers it instead of its handler. */
  request(request: FaultPlan.Request): Of<"HttpBurst"> | undefined {
    let hit: Of<"HttpBurst"> | undefined
    for (const armed of this.of("HttpBurst")) {
      if (armed.fault.operation !== request) continue
      armed.seen++
      if (armed.seen < armed.fault.occurrence || armed.fired >= armed.fault.count || hit !== undefined) continue
      this.fire(armed, {})
      hit = armed.fault
    }
    return hit
  }

  /** Counts a reply that is about to leave and says whether it is lost on its way. */
  loses(request: FaultPlan.Request, site: Site): boolean {
    return this.occurrence("LoseResponse", request, site) !== undefined
  }

  /** Counts a newly accepted operation. */
  operation(operation: FaultPlan.Operation, site: Site): OperationFaults {
    return {
      lose: this.loses(operation, site),
      delay: this.occurrence("DelayResult", operation, site),
      expire: this.occurrence("ExpireFuture", operation, site) !== undefined,
      softFail: this.occurrence("SoftFail", operation, site)
    }
  }

  /** What happens to the model that is about to apply this step of its lineage. */
  step(step: number, site: Site): "corrupt" | "loseSession" | undefined {
    for (const armed of this.of("Corrupt")) {
      if (armed.fault.atStep !== step || armed.fired >= timesOf(armed.fault)) continue
      this.fire(armed, site)
      return "corrupt"
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

  /** Fires the timed corruptions of a plan one by one; the caller keeps the time. */
  timed(fault: Of<"CorruptAfter">, site: Site): void {
    for (const armed of this.of("CorruptAfter")) {
      if (armed.fault !== fault || armed.fired > 0) continue
      this.fire(armed, site)
      return
    }
  }
}
