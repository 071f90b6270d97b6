/** Python programs beside the tests: started on a port of their own, and ended with everything that they started. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { createServer } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"

export interface Program {
  readonly pid: number
  /** The newest of what it printed. */
  readonly output: () => string
  readonly running: () => boolean
  /** Sends a signal to the program alone. */
  readonly signal: (signal: NodeJS.Signals) => void
  /** Ends the program and what it started: asked first, killed after ten seconds. Returns once it is gone. */
  readonly stop: () => Promise<void>
}

export interface ProgramOptions {
  readonly cwd: string
  /** Folders that Python looks for modules in. */
  readonly modules: ReadonlyArray<string>
  readonly env: Readonly<Record<string, string>>
}

export const start = (program: string, args: ReadonlyArray<string>, { cwd, env, modules }: ProgramOptions): Program => {
  // a process group of its own, so that what it starts can be ended with it; and an input, whose end it takes for ours
  const child = spawn(program, args, {
    cwd,
    env: { ...process.env, PYTHONDONTWRITEBYTECODE: "1", ...env, PYTHONPATH: modules.join(":") },
    detached: true,
    stdio: ["pipe", "pipe", "pipe"]
  })
  const { pid } = child
  if (pid === undefined) throw new Error(`${program} could not be started`)
  let text = ""
  const keep = (part: Buffer) => void (text = (text + part.toString()).slice(-20_000))
  child.stdout.on("data", keep)
  child.stderr.on("data", keep)
  const ended = once(child, "exit")
  const group = (signal: NodeJS.Signals) => {
    try {
      process.kill(-pid, signal)
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error
    }
  }
  const running = () => child.exitCode === null && child.signalCode === null
  const stop = async () => {
    group("SIGCONT")
    group("SIGTERM")
    await Promise.race([ended, sleep(10_000, undefined, { ref: false })])
    group("SIGKILL")
    await ended
    process.removeListener("exit", atExit)
  }
  const atExit = () => group("SIGKILL")
  process.once("exit", atExit)
  return { pid, output: () => text, running, signal: (signal) => void child.kill(signal), stop }
}

/** The processes that a process has started. */
export const childrenOf = (pid: number): ReadonlyArray<number> =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number)

/** A port that was free a moment ago. */
export const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  server.close()
  await once(server, "close")
  if (address === null || typeof address === "string") throw new Error("no port")
  return address.port
}

/** Asks again and again, for so many seconds, until something is so. */
export const until = async (
  what: string,
  seconds: number,
  isSo: () => Promise<boolean> | boolean,
  why: () => string = () => ""
): Promise<void> => {
  const deadline = performance.now() + seconds * 1000
  while (performance.now() < deadline) {
    if (await isSo()) return
    await sleep(100)
  }
  throw new Error(`${what}: not within ${seconds} s. ${why()}`)
}
