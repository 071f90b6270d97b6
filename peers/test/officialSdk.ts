/** What the program `python/official_sdk.py` saw, case by case. */
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import type { Environment } from "../environments.ts"

const execute = promisify(execFile)
const folder = join(import.meta.dirname, "..", "python")

type Ready = Extract<Environment, { readonly _tag: "Ready" }>

export interface Seen {
  readonly case: string
  readonly saw?: unknown
  readonly error?: string
  readonly seconds: number
}

const clean = { ...process.env, PYTHONDONTWRITEBYTECODE: "1", PYTHONPATH: "" }

/** Runs cases of the driver, all but `custom_loss` if none is named. */
export const drive = async (
  { python }: Ready,
  url: string,
  cases: ReadonlyArray<string> = [],
  options: { readonly standIn?: boolean } = {}
): Promise<ReadonlyMap<string, Seen>> => {
  const args = [join(folder, "official_sdk.py"), url, ...cases]
  const env = { ...clean, ...(options.standIn === true ? { PYTHONPATH: join(folder, "stand_in") } : {}) }
  const { stdout } = await execute(python, args, { env, timeout: 240_000, killSignal: "SIGKILL", maxBuffer: 64 << 20 })
  const seen = stdout.split("\n").filter((line) => line.startsWith("{"))
  return new Map(seen.map((line) => JSON.parse(line) as Seen).map((one) => [one.case, one])) // the driver is ours
}

/** Runs the SDK's own command. */
export const command = async (
  { bin }: Ready,
  url: string,
  args: ReadonlyArray<string>,
  cwd?: string
): Promise<{ readonly code: number; readonly out: string; readonly err: string }> => {
  const env = { ...clean, TINKER_BASE_URL: url, TINKER_API_KEY: "tml-peer" }
  const settings = { env, timeout: 120_000, killSignal: "SIGKILL", ...(cwd === undefined ? {} : { cwd }) } as const
  try {
    const { stderr, stdout } = await execute(join(bin, "tinker"), [...args], settings)
    return { code: 0, out: stdout, err: stderr }
  } catch (error) {
    if (!(error instanceof Error) || !("stdout" in error) || !("stderr" in error) || !("code" in error)) throw error
    return { code: Number(error.code), out: String(error.stdout), err: String(error.stderr) }
  }
}
