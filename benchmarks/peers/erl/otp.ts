// Erlang/OTP as a peer, where it is installed: each sample runs in an emulator of its own.
import { execFile, execFileSync } from "node:child_process"
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import type { Contender } from "../../kit.ts"

const execute = promisify(execFile)

/** The contender for one measurement of `otp_peer.erl`; none, with a line on stderr, without Erlang. */
export const otp = (measure: "call" | "cast" | "idle", count: number): ReadonlyArray<Contender> => {
  let release: string
  try {
    const program = "io:format(erlang:system_info(otp_release)), halt()."
    release = execFileSync("erl", ["-noshell", "-eval", program], { encoding: "utf8", stdio: "pipe" })
  } catch {
    console.error("erl is not installed: the comparison with Erlang/OTP is skipped.")
    return []
  }
  const compiled = mkdtempSync(join(tmpdir(), "tinkex-erl-"))
  const sources = ["otp_peer.erl", "otp_server.erl"].map((file) => join(import.meta.dirname, file))
  execFileSync("erlc", ["-o", compiled, ...sources])
  const args = ["-noshell", "+P", "1000000", "-pa", compiled, "-run", "otp_peer", "main", measure, String(count)]
  const sample = async () => {
    const { stdout } = await execute("erl", args)
    const value = Number(stdout)
    if (!(value > 0)) throw new Error(`erl printed "${stdout}" instead of a number`)
    return value
  }
  return [{ name: `OTP ${release}`, sample }]
}
