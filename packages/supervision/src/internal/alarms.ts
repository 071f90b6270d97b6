import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { type SupervisionEvent, format } from "../SupervisionEvent.ts"

/** Lines per second and tree. A crash storm must not become a storm of log lines. */
const linesPerWindow = 16
const windowMillis = 1000

/** Logs what nobody reads: the first alarms of each second, and then how many more there were. */
export class Alarms {
  private readonly context: Context.Context<never>
  private began = Number.NEGATIVE_INFINITY
  private lines = 0
  private silenced = 0

  constructor(context: Context.Context<never>) {
    this.context = context
  }

  raise(event: SupervisionEvent, now: number): void {
    if (now - this.began >= windowMillis) {
      this.close()
      this.began = now
      this.lines = 0
    }
    if (this.lines >= linesPerWindow) {
      this.silenced++
      return
    }
    this.lines++
    this.log(format(event))
  }

  close(): void {
    if (this.silenced > 0) this.log(`${this.silenced} more supervision events like these were not logged`)
    this.silenced = 0
  }

  private log(line: string): void {
    Effect.runForkWith(this.context)(Effect.logWarning(line))
  }
}
