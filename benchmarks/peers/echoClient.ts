// Asks an echo server every 10 ms for a number of seconds, and prints the 99th percentile of the round trips in milliseconds.
import { once } from "node:events"
import { connect } from "node:net"
import { setTimeout } from "node:timers/promises"
import { percentile } from "../kit.ts"

const [port, seconds] = process.argv.slice(2).map(Number)
if (port === undefined || seconds === undefined) throw new Error("give a port and a number of seconds")

const socket = connect(port, "127.0.0.1").setNoDelay()
await once(socket, "connect")
const end = performance.now() + seconds * 1000
const trips: Array<number> = []
while (performance.now() < end) {
  await setTimeout(10)
  const began = performance.now()
  const back = once(socket, "data")
  socket.write("ping")
  await back
  trips.push(performance.now() - began)
}
socket.destroy()
console.log(percentile(trips, 0.99))
