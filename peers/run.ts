// Tests this project against programs that it did not write: `npm run test:peers`.
//
// `--only NAME`, which may be repeated, takes some of the peers; `--require-peers` fails where one was skipped. A peer is
// skipped, with the reason, where its Python or the package index is missing.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { type EnvironmentName, pinned, prepare } from "./environments.ts"

interface Peer {
  readonly what: string
  readonly environments: ReadonlyArray<EnvironmentName>
  readonly project: string
  readonly test: string
  /** Seconds that its tests may take. */
  readonly limit: number
}

const peers: Readonly<Record<string, Peer>> = {
  python: {
    what: "the official Python SDK drives our emulator",
    environments: ["tinker-0.25", "tinker-0.38"],
    project: "tinker",
    test: "officialSdk.peer.ts",
    limit: 600
  },
  skyrl: {
    what: "our SDK drives SkyRL's server",
    environments: ["skyrl-0.4"],
    project: "skyrl",
    test: "skyrl.peer.ts",
    limit: 1500
  },
  tuft: {
    what: "our SDK drives TuFT",
    environments: ["tuft-0.2"],
    project: "tuft",
    test: "tuft.peer.ts",
    limit: 900
  }
}

const { values } = parseArgs({
  options: { only: { type: "string", multiple: true }, "require-peers": { type: "boolean", default: false } }
})
const names = values.only ?? Object.keys(peers)

const run = async (name: string, { limit, test }: Peer): Promise<string> => {
  const vitest = join(import.meta.dirname, "..", "node_modules", "vitest", "vitest.mjs")
  const config = ["--config", join(import.meta.dirname, "vitest.config.ts")]
  const child = spawn(process.execPath, [vitest, "run", ...config, test], { stdio: "inherit" })
  const timer = setTimeout(() => child.kill("SIGKILL"), limit * 1000)
  const [code, signal] = await once(child, "exit")
  clearTimeout(timer)
  return code === 0 ? "passed" : signal === null ? `failed: see the tests of ${name}` : `ended after ${limit} s`
}

const lines: Array<string> = []
let skipped = false
let failed = false
for (const name of names) {
  const peer = peers[name]
  if (peer === undefined) {
    console.error(`No peer "${name}". There are: ${Object.keys(peers).join(", ")}.`)
    process.exit(1)
  }
  const versions = peer.environments.map((one) => pinned(one, peer.project)).join(" and ")
  const title = `${peer.what} (${versions})`
  const reasons: Array<string> = []
  for (const one of peer.environments) {
    const made = await prepare(one)
    if (made._tag === "Missing") reasons.push(made.reason)
  }
  if (reasons.length > 0) {
    skipped = true
    lines.push(`${title}: skipped: ${[...new Set(reasons)].join("; ")}`)
    continue
  }
  const outcome = await run(name, peer)
  failed ||= outcome !== "passed"
  lines.push(`${title}: ${outcome}`)
}
console.log(`\n${lines.join("\n")}`)
if (skipped && values["require-peers"]) console.log("A peer was skipped and --require-peers was given.")
process.exit(failed || (skipped && values["require-peers"]) ? 1 : 0)
