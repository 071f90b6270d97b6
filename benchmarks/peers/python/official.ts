// The official Python SDK as a peer, where `npm run test:peers` has made its environment: each sample is a process of its own.
import { join } from "node:path"
import { environment, pinned } from "../../../peers/environments.ts"
import type { Peer, Target } from "../../kit.ts"
import { numbersOf } from "../../sampling.ts"

const name = "tinker-0.38"
let told = false

/**
 * The peer for one measure of `official_client.py`; none, with one line on stderr, without its environment. One round to warm up
 * is enough for it: nothing in it compiles while it runs.
 */
export const official = (
  measure: "encode" | "futures" | "runs" | "sample",
  args: ReadonlyArray<number | string>,
  { target }: { readonly target?: Target } = {}
): ReadonlyArray<Peer> => {
  const env = environment(name)
  if (env._tag === "Missing") {
    if (!told) console.error(`The comparison with the official Python SDK is skipped: ${env.reason}.`)
    told = true
    return []
  }
  const program = [join(import.meta.dirname, "official_client.py"), measure, ...args.map(String)]
  return [
    {
      name: `official Python SDK ${pinned(name, "tinker")}`,
      sample: () => numbersOf(env.python, program, 300),
      ...(target === undefined ? {} : { target })
    }
  ]
}
