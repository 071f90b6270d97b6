/** TuFT in its CPU test mode, in a folder of its own. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Environment } from "../environments.ts"
import { freePort, type Program, start, until } from "./process.ts"

export const model = "tiny/qwen"

/** Keys of two users. */
export const keys = { peer: "tml-peer", other: "tml-other" }

export interface Tuft extends AsyncDisposable {
  readonly url: string
  /** Whether optimizer steps are held up. */
  readonly busy: (is: boolean) => void
  /** Ends the server, kindly or by force, and starts it again over the same files, perhaps with another scale of LoRA. */
  readonly restart: (how: { readonly kill?: boolean; readonly loraAlphaRatio?: number }) => Promise<void>
}

export const open = async ({ python }: Extract<Environment, { readonly _tag: "Ready" }>): Promise<Tuft> => {
  const folder = mkdtempSync(join(tmpdir(), "tinkex-tuft-"))
  const config = join(folder, "config.yaml")
  const busy = join(folder, "busy")
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const launch = async (loraAlphaRatio: number): Promise<Program> => {
    const described = {
      supported_models: [
        { model_name: model, model_path: "/none/qwen", max_model_len: 2048, lora_alpha_ratio: loraAlphaRatio }
      ],
      authorized_users: Object.fromEntries(Object.entries(keys).map(([user, key]) => [key, user])),
      checkpoint_dir: join(folder, "checkpoints"),
      persistence: { mode: "FILE", file_path: join(folder, "state.json"), namespace: "peers" }
    }
    writeFileSync(config, JSON.stringify(described)) // JSON is YAML
    const args = [join(import.meta.dirname, "..", "tuft", "serve.py"), config, String(port), busy]
    const env = { TUFT_CPU_TEST: "1", CUDA_VISIBLE_DEVICES: "", HF_HUB_OFFLINE: "1" }
    const server = start(python, args, { cwd: folder, env, modules: [join(import.meta.dirname, "..", "python")] })
    const healthy = () =>
      fetch(`${url}/api/v1/healthz`).then(
        ({ ok }) => ok,
        () => false
      )
    await until(
      "TuFT serves",
      120,
      async () => {
        if (!server.running()) throw new Error(`TuFT ended: ${server.output().slice(-2000)}`)
        return healthy()
      },
      () => server.output().slice(-2000)
    )
    return server
  }
  let ratio = 2
  let server = await launch(ratio)
  return {
    url,
    busy: (is) => (is ? writeFileSync(busy, "") : rmSync(busy, { force: true })),
    restart: async ({ kill = false, loraAlphaRatio = ratio }) => {
      if (kill) server.signal("SIGKILL")
      await server.stop()
      ratio = loraAlphaRatio
      server = await launch(ratio)
    },
    [Symbol.asyncDispose]: async () => {
      await server.stop()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
