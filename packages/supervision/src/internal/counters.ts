import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { SupervisionEvent } from "../SupervisionEvent.ts"
import * as SupervisionMetrics from "../SupervisionMetrics.ts"

type Tag = SupervisionEvent["_tag"]

const byTag = new Map<Tag, Metric.Metric<number, unknown>>()

const metricOf = (tag: Tag): Metric.Metric<number, unknown> => {
  let metric = byTag.get(tag)
  if (metric === undefined) {
    metric = Metric.withAttributes(SupervisionMetrics.events, { event: tag })
    byTag.set(tag, metric)
  }
  return metric
}

/** What one tree has counted since it last told the metrics. */
export class Counters {
  private readonly context: Context.Context<never>
  private readonly events = new Map<Tag, number>()
  private toldChildren = 0
  private toldZombies = 0
  children = 0
  zombies = 0
  messages = 0
  dirty = false

  constructor(context: Context.Context<never>) {
    this.context = context
  }

  count(tag: Tag): void {
    this.events.set(tag, (this.events.get(tag) ?? 0) + 1)
    this.dirty = true
  }

  flush(): void {
    this.dirty = false
    for (const [tag, count] of this.events) metricOf(tag).updateUnsafe(count, this.context)
    this.events.clear()
    if (this.messages > 0) SupervisionMetrics.messages.updateUnsafe(this.messages, this.context)
    this.messages = 0
    if (this.children !== this.toldChildren) {
      SupervisionMetrics.children.modifyUnsafe(this.children - this.toldChildren, this.context)
      this.toldChildren = this.children
    }
    if (this.zombies !== this.toldZombies) {
      SupervisionMetrics.zombies.modifyUnsafe(this.zombies - this.toldZombies, this.context)
      this.toldZombies = this.zombies
    }
  }
}
