/** SkyRL's server on the CPU with a tiny model, in a folder of its own. */
import { execFile } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import type { Environment } from "../environments.ts"
import { childrenOf, freePort, type Program, start, until } from "./process.ts"

const execute = promisify(execFile)
const scripts = join(import.meta.dirname, "..", "skyrl")
const modules = [join(scripts, "stand_in"), join(import.meta.dirname, "..", "python")]

/** The name that the server shows; it is a folder, so that no hub is ever asked. */
export const model = "tiny/qwen3-64"

const env = {
  JAX_PLATFORMS: "cpu",
  HF_HUB_OFFLINE: "1",
  TRANSFORMERS_OFFLINE: "1"
}

export interface SkyRl extends AsyncDisposable {
  readonly url: string
  readonly api: () => Program
  /** The process that computes; it is a child of the API's. */
  readonly enginePid: () => number
  /** Starts the server again on the same port and the same database. The old one must have ended. */
  readonly restart: () => Promise<void>
}

export interface SkyRlOptions {
  /** Seconds without a heartbeat after which a session is over. Default 300. */
  readonly sessionTimeout?: number
}

export const open = async (
  { python }: Extract<Environment, { readonly _tag: "Ready" }>,
  { sessionTimeout = 300 }: SkyRlOptions = {}
): Promise<SkyRl> => {
  const folder = mkdtempSync(join(tmpdir(), "tinkex-skyrl-"))
  await execute(python, [join(scripts, "tiny_model.py"), join(folder, model)], { timeout: 120_000 })
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const backend = { max_lora_adapters: 8, max_lora_rank: 8, train_micro_batch_size: 8, sample_max_num_sequences: 4 }
  const settings = {
    host: "127.0.0.1",
    port: String(port),
    "base-model": model,
    backend: "jax",
    "backend-config": JSON.stringify(backend),
    "database-url": `sqlite:///${join(folder, "tinker.db")}`,
    "checkpoints-base": join(folder, "checkpoints"),
    "session-timeout-sec": String(sessionTimeout),
    "session-cleanup-interval-sec": "2"
  }
  const args = [join(scripts, "serve.py"), ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])]
  const launch = async () => {
    const api = start(python, args, { cwd: folder, env, modules })
    const healthy = () =>
      fetch(`${url}/api/v1/healthz`).then(
        ({ ok }) => ok,
        () => false
      )
    const ended = () => {
      if (!api.running()) throw new Error(`SkyRL ended: ${api.output().slice(-2000)}`)
      return false
    }
    await until(
      "SkyRL serves",
      60,
      async () => (await healthy()) || ended(),
      () => api.output().slice(-2000)
    )
    return api
  }
  let api = await launch()
  return {
    url,
    api: () => api,
    enginePid: () => {
      const [pid] = childrenOf(api.pid)
      if (pid === undefined) throw new Error("SkyRL has no engine")
      return pid
    },
    restart: async () => {
      await api.stop()
      api = await launch()
    },
    [Symbol.asyncDispose]: async () => {
      await api.stop()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
