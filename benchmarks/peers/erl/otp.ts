// Erlang/OTP as a peer, where it is installed: two schedulers, and each sample runs in an emulator of its own.
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Peer, Target } from "../../kit.ts"
import { numbersOf } from "../../sampling.ts"

interface Emulator {
  readonly name: string
  readonly args: ReadonlyArray<string>
}

const prepare = (): Emulator | undefined => {
  const program = "io:format(erlang:system_info(otp_release)), halt()."
  let release: string
  try {
    release = execFileSync("erl", ["-noshell", "-eval", program], { encoding: "utf8", stdio: "pipe", timeout: 30_000 })
  } catch {
    console.error("erl is not installed: the comparison with Erlang/OTP is skipped.")
    return undefined
  }
  const compiled = mkdtempSync(join(tmpdir(), "tinkex-erl-"))
  process.once("exit", () => rmSync(compiled, { recursive: true, force: true }))
  const sources = ["otp_peer.erl", "otp_server.erl"].map((file) => join(import.meta.dirname, file))
  execFileSync("erlc", ["-o", compiled, ...sources], { timeout: 60_000 })
  return { name: `OTP ${release}`, args: ["-noshell", "+S", "2:2", "+P", "1000000", "-pa", compiled] }
}

let prepared: { readonly emulator: Emulator | undefined } | undefined

/** The peer for one measurement of `otp_peer.erl`; none, with one line on stderr, without Erlang. */
export const otp = (
  measure: string,
  count: number,
  { target, variant }: { readonly target?: Target; readonly variant?: string } = {}
): ReadonlyArray<Peer> => {
  prepared ??= { emulator: prepare() }
  const { emulator } = prepared
  if (emulator === undefined) return []
  const args = [...emulator.args, "-run", "otp_peer", "main", measure, String(count)]
  const name = variant === undefined ? emulator.name : `${emulator.name} ${variant}`
  return [{ name, sample: () => numbersOf("erl", args), ...(target === undefined ? {} : { target }) }]
}
