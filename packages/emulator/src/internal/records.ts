/** What is written down about requests, users and their use. All of it is in memory, and bounded. */
import type { RequestRecord, TelemetryRecord } from "../EmulatorControl.ts"
import type { CheckpointRecord, Run } from "./catalog.ts"
import type { Session } from "./entities.ts"
import { type Consumer, Usage, type UsageInfo } from "./usage.ts"

/** Something that a user did, for the audit. */
export interface Deed {
  readonly at: number
  readonly event: string
  readonly modelId: string
  readonly path?: string
  readonly purpose?: string
}

const limit = 100_000

/** Adds to a list; cut back now and then, so that adding stays cheap. */
const add = <A>(list: Array<A>, entry: A): void => {
  list.push(entry)
  if (list.length > limit * 1.1) list.splice(0, list.length - limit)
}

export class Records {
  readonly requests: Array<RequestRecord> = []
  readonly deeds: Array<Deed> = []
  readonly telemetry: Array<TelemetryRecord> = []
  readonly usage = new Usage()
  private readonly now: () => number

  constructor(now: () => number) {
    this.now = now
  }

  request(entry: RequestRecord): void {
    add(this.requests, entry)
  }

  /** Enters what was done with a model or with a checkpoint of its run. */
  did(event: string, run: Run, checkpoint?: Pick<CheckpointRecord, "kind" | "name">): void {
    const about =
      checkpoint === undefined
        ? {}
        : {
            path: `tinker://${run.id}/${checkpoint.kind}/${checkpoint.name}`,
            purpose: checkpoint.kind === "weights" ? "training" : "sampling"
          }
    add(this.deeds, { at: this.now(), event, modelId: run.id, ...about })
  }

  keepTelemetry(entry: TelemetryRecord): void {
    add(this.telemetry, entry)
  }

  /** Who pays for what is done in a session. */
  consumer(session: Session, baseModel: string): Consumer {
    return { user: session.owner, sessionId: session.id, projectId: session.projectId, baseModel }
  }

  charge(consumer: Consumer, info: UsageInfo): void {
    this.usage.add(this.now(), consumer, info)
  }
}
