import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { SupervisionEvent } from "../SupervisionEvent.ts"

/** Events that one slow reader may be behind before it loses the oldest; also the number that a late reader still sees. */
const readerCapacity = 1024
const historyCapacity = 256

class Reader {
  private buffer: Array<SupervisionEvent>
  private missed = 0
  private wake: ((effect: Effect.Effect<void>) => void) | undefined = undefined
  private readonly about: (event: SupervisionEvent) => boolean

  constructor(history: ReadonlyArray<SupervisionEvent>, about: (event: SupervisionEvent) => boolean) {
    this.about = about
    this.buffer = history.filter(about)
  }

  push(event: SupervisionEvent): void {
    if (!this.about(event)) return
    if (this.buffer.length >= readerCapacity) {
      this.buffer.shift()
      this.missed++
    }
    this.buffer.push(event)
    this.resume()
  }

  resume(): void {
    const wake = this.wake
    this.wake = undefined
    wake?.(Effect.void)
  }

  take(): Arr.NonEmptyReadonlyArray<SupervisionEvent> | undefined {
    if (!Arr.isArrayNonEmpty(this.buffer)) return undefined
    const [first] = this.buffer
    const { missed } = this
    const taken: Arr.NonEmptyReadonlyArray<SupervisionEvent> =
      missed === 0
        ? this.buffer
        : [
            { _tag: "EventsMissed", supervisor: first.supervisor, child: first.child, time: first.time, count: missed },
            ...this.buffer
          ]
    this.missed = 0
    this.buffer = []
    return taken
  }

  readonly wait: Effect.Effect<void> = Effect.callback<void>((resume) => {
    this.wake = resume
    return Effect.sync(() => {
      this.wake = undefined
    })
  })
}

/** Fans events out to readers that each have their own bounded buffer, so that none can hold up the tree or another. */
export class EventHub {
  private readonly readers = new Set<Reader>()
  private readonly history: Array<SupervisionEvent> = []
  private oldest = 0
  private closed = false

  get hasReaders(): boolean {
    return this.readers.size > 0
  }

  push(event: SupervisionEvent): void {
    if (this.history.length < historyCapacity) {
      this.history.push(event)
    } else {
      this.history[this.oldest] = event
      this.oldest = (this.oldest + 1) % historyCapacity
    }
    for (const reader of this.readers) reader.push(event)
  }

  close(): void {
    this.closed = true
    for (const reader of this.readers) reader.resume()
  }

  stream(about: (event: SupervisionEvent) => boolean): Stream.Stream<SupervisionEvent> {
    const subscribe = Effect.acquireRelease(
      Effect.sync(() => {
        const past = [...this.history.slice(this.oldest), ...this.history.slice(0, this.oldest)]
        const reader = new Reader(past, about)
        this.readers.add(reader)
        return reader
      }),
      (reader) => Effect.sync(() => this.readers.delete(reader))
    )
    return Stream.unwrap(
      Effect.map(subscribe, (reader) => {
        const pull: Effect.Effect<Arr.NonEmptyReadonlyArray<SupervisionEvent>, Cause.Done> = Effect.suspend(() => {
          const events = reader.take()
          if (events !== undefined) return Effect.succeed(events)
          return this.closed ? Cause.done() : Effect.andThen(reader.wait, pull)
        })
        return Stream.fromPull(Effect.succeed(pull))
      })
    )
  }
}

export const timeOf = (millis: number): DateTime.Utc => DateTime.makeUnsafe(millis)
