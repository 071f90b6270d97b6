// Runs the benchmarks. `--format json` prints one object a line and nothing else; `--only NAME` picks one file; `--quick`
// takes fewer samples. Each one runs in a process of its own, so that none warms up or fills the heap for the next.
import { spawnSync } from "node:child_process"
import { parseArgs } from "node:util"
import { type Run, print } from "./kit.ts"

const benchmarks: Record<string, () => Promise<{ readonly run: Run }>> = {
  "actor-call": () => import("./actor-call.ts"),
  "actor-cast": () => import("./actor-cast.ts"),
  "actor-idle-memory": () => import("./actor-idle-memory.ts"),
  "trainer-step-overhead": () => import("./trainer-step-overhead.ts")
}

const { values } = parseArgs({
  options: {
    format: { type: "string", default: "text" },
    only: { type: "string" },
    quick: { type: "boolean", default: false }
  }
})
const format = values.format === "json" ? "json" : "text"
const { only, quick } = values

if (only === undefined) {
  let failed = 0
  for (const name of Object.keys(benchmarks)) {
    const args = [...process.execArgv, import.meta.filename, "--only", name, "--format", format]
    const { status } = spawnSync(process.execPath, quick ? [...args, "--quick"] : args, { stdio: "inherit" })
    if (status !== 0) failed++
  }
  process.exitCode = failed === 0 ? 0 : 1
} else {
  const load = benchmarks[only]
  if (load === undefined) {
    console.error(`No benchmark "${only}". There are: ${Object.keys(benchmarks).join(", ")}.`)
    process.exitCode = 1
  } else {
    const { run } = await load()
    for (const result of await run({ format, quick })) print(format, result)
  }
}
