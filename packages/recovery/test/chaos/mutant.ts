// Plays faults against a mutant until one of them is noticed. Ends with 0 if it was, 1 if it was not, 2 if the patch fits nothing.
import { readFileSync } from "node:fs"
import { registerHooks } from "node:module"
import { mutants } from "./mutants.ts"

const [name = "", seeds = "200"] = process.argv.slice(2)
const mutant = mutants.find((mutant) => mutant.name === name)
if (mutant === undefined) {
  console.error(`there is no mutant "${name}". Known: ${mutants.map(({ name }) => name).join(" ")}`)
  process.exit(2)
}

const root = new URL("../../../../", import.meta.url).href
const patched = new Set<string>()
registerHooks({
  load: (url, context, next) => {
    const patches = mutant.patches.filter(({ file }) => url === root + file)
    if (patches.length === 0) return next(url, context)
    let source = readFileSync(new URL(url), "utf8")
    for (const { file, find, put } of patches) {
      if (source.split(find).length !== 2) {
        console.error(`${name}: "${find}" stands ${source.split(find).length - 1} times in ${file}`)
        process.exit(2)
      }
      source = source.replace(find, () => put)
      patched.add(find)
    }
    return { format: "module-typescript", source, shortCircuit: true }
  }
})

const { Effect } = await import("effect")
const { draw } = await import("./draw.ts")
const { catalogue } = await import("./catalogue.ts")
const { play } = await import("./play.ts")

if (patched.size !== mutant.patches.length) {
  console.error(`${name}: ${mutant.patches.length - patched.size} patches were never loaded`)
  process.exit(2)
}
for (let seed = 1; seed <= Number(seeds); seed++) {
  for (const id of mutant.faults) {
    const fault = catalogue.find((fault) => fault.id === id)
    if (fault === undefined) continue
    const { violations } = await Effect.runPromise(play(fault.scenario(draw(id, seed))))
    if (violations.length === 0) continue
    console.log(`${name}: ${id} seed ${seed}: ${violations.join("; ")}`)
    process.exit(0)
  }
}
console.error(`${name}: nobody has noticed in ${seeds} seeds of ${mutant.faults.join(", ")}`)
process.exit(1)
