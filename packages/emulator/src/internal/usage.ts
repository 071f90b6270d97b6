/** What is billed: tokens and checkpoints, added up by the hour. Kept in memory only. */

export type UsageInfo =
  | { readonly type: "training"; readonly token_count: number }
  | { readonly type: "sampling_prefill"; readonly cached: boolean; readonly token_count: number }
  | { readonly type: "sampling_sample"; readonly token_count: number }
  | { readonly type: "checkpoint"; readonly count: number }
  | { readonly type: "storage"; readonly gigabyte_hours: number }

/** Who used it, and for what. */
export interface Consumer {
  readonly user: string
  readonly sessionId: string | null
  readonly projectId: string | null
  readonly baseModel: string
}

export interface UsageEvent {
  readonly hour: number
  readonly consumer: Consumer
  readonly info: UsageInfo
}

export const hourMillis = 3_600_000

const plus = (a: UsageInfo, b: UsageInfo): UsageInfo => {
  if ("token_count" in a && "token_count" in b) return { ...a, token_count: a.token_count + b.token_count }
  return a.type === "checkpoint" && b.type === "checkpoint" ? { ...a, count: a.count + b.count } : b
}

export class Usage {
  private readonly buckets = new Map<string, UsageEvent>()

  add(now: number, consumer: Consumer, info: UsageInfo): void {
    const hour = Math.floor(now / hourMillis)
    const { baseModel, projectId, sessionId, user } = consumer
    const key = JSON.stringify([hour, info.type, user, sessionId, projectId, baseModel])
    const before = this.buckets.get(key)
    this.buckets.set(key, { hour, consumer, info: before === undefined ? info : plus(before.info, info) })
  }

  /** The hours from `from` up to, but not, `before`, oldest first. */
  between(from: number, before: number): ReadonlyArray<UsageEvent> {
    return [...this.buckets.values()]
      .filter(({ hour }) => hour * hourMillis >= from && hour * hourMillis < before)
      .toSorted((a, b) => a.hour - b.hour)
  }
}
