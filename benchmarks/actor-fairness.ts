// What a flood of messages does to the rest of the program: how late a timer of 10 ms fires, and how long the echo of a
// loopback socket takes that another process asks for, both at the 99th percentile, against the same in an idle process. One
// fiber sends casts without a pause, and a message goes around a ring of actors for ever.
import { once } from "node:events"
import { type AddressInfo, createServer } from "node:net"
import { join } from "node:path"
import { Effect } from "effect"
import { type Benches, compare, percentile } from "./kit.ts"
import { Counter, dynamic, ring } from "./peers/actors.ts"
import { numbersOf, sampled } from "./sampling.ts"

const interval = 10

const lateness = (seconds: number) =>
  Effect.callback<number>((resume) => {
    const late: Array<number> = []
    const end = performance.now() + seconds * 1000
    const wait = () => {
      const due = performance.now() + interval
      setTimeout(() => {
        const now = performance.now()
        late.push(Math.max(0, now - due)) // a timer counts in whole milliseconds and may be early
        if (now < end) wait()
        else resume(Effect.succeed(percentile(late, 0.99)))
      }, interval)
    }
    wait()
  })

const echo = (seconds: number) =>
  Effect.gen(function* () {
    const server = createServer({ noDelay: true }, (socket) => socket.pipe(socket)).listen(0, "127.0.0.1")
    yield* Effect.promise(() => once(server, "listening"))
    const { port } = server.address() as AddressInfo // it listens on a port, not on a pipe
    const client = [
      ...process.execArgv,
      join(import.meta.dirname, "peers/echoClient.ts"),
      String(port),
      String(seconds)
    ]
    const [trip = Number.NaN] = yield* Effect.promise(() => numbersOf(process.execPath, client, seconds + 15))
    server.close()
    return trip
  })

const delays = (seconds: number) => Effect.all([lateness(seconds), echo(seconds)], { concurrency: "unbounded" })

const flooded = Effect.fnUntraced(function* (seconds: number) {
  const start = yield* dynamic
  const first = yield* ring(start, 100, () => {})
  yield* first.cast.pass(Infinity)
  const counter = yield* start(Counter, 0)
  const send = Effect.gen(function* () {
    for (;;) yield* counter.cast.tick()
  })
  yield* Effect.forkScoped(send)
  yield* Effect.sleep("1 second") // to warm up
  const before = yield* counter.call.read()
  const measured = yield* delays(seconds)
  const handled = (yield* counter.call.read()) - before
  if (handled < 10_000 * seconds) throw new Error(`${handled} messages in ${seconds} s are no flood`)
  return measured
})

const sample = await sampled(import.meta, { flooded, idle: delays })

export const benches: Benches = {
  fairness: ({ quick }) => {
    const seconds = quick ? 5 : 30
    return compare({
      benches: ["fairness-timer", "fairness-socket"],
      unit: "ms p99",
      better: "lower",
      rounds: quick ? 1 : 5,
      ours: sample("flooded", seconds),
      peers: [{ name: "idle loop", sample: sample("idle", seconds), target: { atMost: 5 } }]
    })
  }
}
