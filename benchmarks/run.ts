// Runs the benchmarks. `--format json` prints one object a line and nothing else; `--only NAME`, which may be repeated, picks
// some of them; `--quick` takes fewer and shorter samples; `--strict` makes a missed target an error.
import { parseArgs } from "node:util"
import { type Benches, print } from "./kit.ts"

// files are loaded when their turn comes, so that one which does not load stops nothing before it
const files: ReadonlyArray<
  readonly [load: () => Promise<{ readonly benches: Benches }>, ...names: ReadonlyArray<string>]
> = [
  [() => import("./actor-call.ts"), "call", "call-generator"],
  [() => import("./actor-cast.ts"), "cast"],
  [() => import("./actor-ring.ts"), "ring"],
  [() => import("./actor-start-stop.ts"), "start-stop-100k"],
  [() => import("./actor-idle-memory.ts"), "idle-memory", "idle-memory-finalizer"],
  [() => import("./actor-restart.ts"), "restart-kill", "restart-throw", "restart-burst"],
  [() => import("./actor-children.ts"), "start-100k-dynamic", "start-100k-dynamic-finalizer", "stop-100k"],
  [() => import("./actor-fairness.ts"), "fairness"],
  [() => import("./trainer-step-overhead.ts"), "trainer-step-overhead"],
  [() => import("./journal-append.ts"), "journal-append"],
  [() => import("./journal-share.ts"), "journal-share"],
  [() => import("./goodput-cadence.ts"), "goodput-mtbf-6h", "goodput-mtbf-30m"],
  [() => import("./archive-download.ts"), "archive-download"],
  [() => import("./list-runs.ts"), "list-runs"],
  [() => import("./sample-client-cpu.ts"), "sample-client-cpu"],
  [() => import("./futures-client-cpu.ts"), "futures-client-cpu"],
  [() => import("./encode-batch.ts"), "encode-batch"],
  [() => import("./recovery-fleet.ts"), "fleet-sweep"],
  [() => import("./recovery-burst.ts"), "mass-poison", "decision-to-step", "in-band-detection"]
]

const { values } = parseArgs({
  options: {
    format: { type: "string", default: "text" },
    only: { type: "string", multiple: true },
    quick: { type: "boolean", default: false },
    strict: { type: "boolean", default: false }
  }
})
const { only, quick, strict } = values
const format = values.format === "json" ? "json" : "text"

const known = files.flatMap(([, ...names]) => names)
const unknown = only?.find((name) => !known.includes(name))
if (unknown !== undefined) {
  console.error(`No benchmark "${unknown}". There are: ${known.join(", ")}.`)
  process.exit(1)
}
for (const [load, ...names] of files) {
  for (const name of names) {
    if (only !== undefined && !only.includes(name)) continue
    try {
      const bench = (await load()).benches[name]
      for (const result of (await bench?.({ quick })) ?? []) {
        print(format, result)
        if (strict && result.met === false) process.exitCode = 1
      }
    } catch (error) {
      console.error(`${name} failed: ${error instanceof Error ? error.message : String(error)}`)
      process.exitCode = 1
    }
  }
}
