// An emulator that computes nothing, in a process of its own: prints its URL and serves until its standard input ends.
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { Emulator } from "@tinkex/emulator"

process.stdin.resume()
process.stdin.on("end", () => process.exit(0))

Emulator.serve({ compute: "none", onReady: (url) => Console.log(url) }).pipe(Effect.asVoid, NodeRuntime.runMain)
