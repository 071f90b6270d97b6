/** Runs the real binary, and ends every process that it started, by its id, also when a test fails. */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll } from "vitest"

const bin = fileURLToPath(new URL("../src/bin.ts", import.meta.url))
export const supportTone = fileURLToPath(new URL("../../../examples/data/support-tone.jsonl", import.meta.url))

const started = new Set<ChildProcess>()
const folders = new Set<string>()

const endAll = () => {
  for (const child of started) child.kill("SIGKILL")
  started.clear()
}

process.once("exit", endAll)
afterAll(() => {
  endAll()
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

export const temporaryFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), "tinkex-cli-"))
  folders.add(folder)
  return folder
}

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface Running {
  readonly pid: number
  readonly stdout: () => string
  readonly stderr: () => string
  readonly isRunning: () => boolean
  readonly ended: Promise<Ended>
  readonly kill: (signal: NodeJS.Signals) => void
}

/** Starts `tinkex` with a clean environment: no key, no service, no terminal. */
export const start = (args: ReadonlyArray<string>, env: Readonly<Record<string, string>> = {}): Running => {
  const child = spawn(process.execPath, ["--conditions=@tinkex/source", bin, ...args], {
    env: { PATH: process.env["PATH"] ?? "", HOME: process.env["HOME"] ?? "", NO_COLOR: "1", ...env },
    stdio: ["ignore", "pipe", "pipe"]
  })
  started.add(child)
  let stdout = ""
  let stderr = ""
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text))
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once("error", reject)
    child.once("close", (code, signal) => {
      started.delete(child)
      resolve({ code, signal, stdout, stderr })
    })
  })
  return {
    pid: child.pid ?? 0,
    stdout: () => stdout,
    stderr: () => stderr,
    isRunning: () => started.has(child),
    ended,
    kill: (signal) => void child.kill(signal)
  }
}

let busy = 0
const waiting: Array<() => void> = []

/** Runs one to its end; three at the same time, so that a test's patience does not depend on how many wait. */
export const tinkex = async (
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {}
): Promise<Ended> => {
  if (busy >= 3) await new Promise<void>((resolve) => waiting.push(resolve))
  else busy++
  try {
    return await start(args, env).ended
  } finally {
    const next = waiting.shift()
    if (next === undefined) busy--
    else next()
  }
}

/** The JSON objects of standard output. */
export const objects = (text: string): ReadonlyArray<Record<string, unknown>> =>
  text
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Record<string, unknown>) // one object a line is what JSON mode promises

export const until = async (what: string, condition: () => boolean, limitMillis = 30_000): Promise<void> => {
  const deadline = Date.now() + limitMillis
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`waited ${limitMillis} ms in vain for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
