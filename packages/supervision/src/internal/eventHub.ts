import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { SupervisionEvent } from "../SupervisionEvent.ts"

/** Items that one slow reader may be behind before it loses the oldest. */
const readerCapacity = 8192
/** Events that a late reader still sees. */
const historyCapacity = 256

const microtask = Promise.resolve()

/** A reader of a hub: a bounded buffer and a way to be woken. */
class Reader<In, Out> {
  private buffer: Array<In>
  /** Where the buffer begins: what is before was lost. */
  private start = 0
  private missed = 0
  private wake: ((effect: Effect.Effect<void>) => void) | undefined = undefined
  private waking = false
  private readonly accept: (item: In) => boolean
  private readonly show: (items: ReadonlyArray<In>, missed: number) => ReadonlyArray<Out>

  constructor(
    accept: (item: In) => boolean,
    show: (items: ReadonlyArray<In>, missed: number) => ReadonlyArray<Out>,
    past: ReadonlyArray<In>
  ) {
    this.accept = accept
    this.show = show
    this.buffer = past.filter(accept)
  }

  push(item: In): void {
    if (!this.accept(item)) return
    this.buffer.push(item)
    if (this.buffer.length - this.start > readerCapacity) {
      this.missed++
      // the lost ones are cut off together, since each cut moves all others
      if (++this.start === readerCapacity) {
        this.buffer = this.buffer.slice(readerCapacity)
        this.start = 0
      }
    }
    this.resume()
  }

  /** Wakes the reader once for all that is pushed in one go, and never on the stack of the one who pushes. */
  resume(): void {
    if (this.waking || this.wake === undefined) return
    this.waking = true
    void microtask.then(() => {
      this.waking = false
      const { wake } = this
      this.wake = undefined
      wake?.(Effect.void)
    })
  }

  take(): ReadonlyArray<Out> {
    const { buffer, missed, start } = this
    this.buffer = []
    this.start = 0
    this.missed = 0
    return this.show(start === 0 ? buffer : buffer.slice(start), missed)
  }

  readonly wait: Effect.Effect<void> = Effect.callback<void>((resume) => {
    this.wake = resume
    return Effect.sync(() => {
      this.wake = undefined
    })
  })
}

/** Hands items to readers that each have their own bounded buffer, so that none can hold up the tree or another. */
export class Hub<In> {
  private readers: ReadonlyArray<Reader<In, unknown>> = []
  private closed = false

  get hasReaders(): boolean {
    return this.readers.length > 0
  }

  push(item: In): void {
    for (const reader of this.readers) reader.push(item)
  }

  close(): void {
    this.closed = true
    for (const reader of this.readers) reader.resume()
  }

  stream<Out>(
    accept: (item: In) => boolean,
    show: (items: ReadonlyArray<In>, missed: number) => ReadonlyArray<Out>,
    past: () => ReadonlyArray<In> = () => []
  ): Stream.Stream<Out> {
    const subscribe = Effect.acquireRelease(
      Effect.sync(() => {
        const reader = new Reader<In, Out>(accept, show, past())
        this.readers = [...this.readers, reader]
        return reader
      }),
      (reader) =>
        Effect.sync(() => {
          this.readers = this.readers.filter((other) => other !== reader)
        })
    )
    return Stream.unwrap(
      Effect.map(subscribe, (reader) => {
        const pull: Effect.Effect<Arr.NonEmptyReadonlyArray<Out>, Cause.Done> = Effect.suspend(() => {
          const items = reader.take()
          if (Arr.isReadonlyArrayNonEmpty(items)) return Effect.succeed(items)
          return this.closed ? Cause.done() : Effect.andThen(reader.wait, pull)
        })
        return Stream.fromPull(Effect.succeed(pull))
      })
    )
  }
}

/** An event to which its supervisor adds where and when. */
export type Emitted = SupervisionEvent extends infer E
  ? E extends SupervisionEvent
    ? Omit<E, "time" | "supervisor">
    : never
  : never

/** The events of a tree. The latest are kept, so that a reader that comes late still sees how it began. */
export class EventHub extends Hub<SupervisionEvent> {
  private readonly history: Array<SupervisionEvent> = []
  private oldest = 0

  override push(event: SupervisionEvent): void {
    if (this.history.length < historyCapacity) {
      this.history.push(event)
    } else {
      this.history[this.oldest] = event
      this.oldest = (this.oldest + 1) % historyCapacity
    }
    if (this.hasReaders) super.push(event)
  }

  events(path: string): Stream.Stream<SupervisionEvent> {
    const below = `${path}/`
    return this.stream(
      (event) => event.supervisor === path || event.supervisor.startsWith(below),
      (events, missed) => {
        const [first] = events
        if (missed === 0 || first === undefined) return events
        const { child, supervisor, time } = first
        return [{ _tag: "EventsMissed" as const, supervisor, child, time, count: missed }, ...events]
      },
      () => [...this.history.slice(this.oldest), ...this.history.slice(0, this.oldest)]
    )
  }
}

let latest = DateTime.makeUnsafe(0)

/** Times are read in bursts, so the latest one is used again while it is right. */
export const timeOf = (millis: number): DateTime.Utc => {
  if (latest.epochMilliseconds !== millis) latest = DateTime.makeUnsafe(millis)
  return latest
}
