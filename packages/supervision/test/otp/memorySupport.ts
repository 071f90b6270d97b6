import { Effect } from "effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void // what the flag exposes

/** Frees everything that nobody can reach. What a `WeakRef` was asked for lives until the end of that turn. */
export const collectGarbage = Effect.promise(async () => {
  for (let turn = 0; turn < 4; turn++) {
    await new Promise<void>((done) => setImmediate(done))
    collect()
  }
})

/** How many of these are still in memory. */
export const alive = (refs: ReadonlyArray<WeakRef<object>>) =>
  Effect.map(collectGarbage, () => refs.filter((ref) => ref.deref() !== undefined).length)
