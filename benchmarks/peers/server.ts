// The emulator that computes nothing, for as long as somebody measures against it.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"

/** Starts it in a process of its own and ends it afterwards, whatever happens. */
export const withEmulator = async <A>(use: (url: string) => Promise<A>): Promise<A> => {
  const program = join(import.meta.dirname, "emulator.ts")
  const server = spawn(process.execPath, [...process.execArgv, program], { stdio: ["pipe", "pipe", "inherit"] })
  try {
    const [line] = await once(server.stdout, "data", { signal: AbortSignal.timeout(30_000) })
    return await use(String(line).trim())
  } finally {
    server.kill()
  }
}
