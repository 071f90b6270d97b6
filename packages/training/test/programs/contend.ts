/** Tries to lock `argv[2]/<round>.db` at the same instant as its rivals, round after round, and prints the rounds it won. */
import * as Effect from "effect/Effect"
import * as folderLock from "../../src/internal/folderLock.ts"

const [, , directory = "", start = "0", rounds = "0", every = "0"] = process.argv

const program = Effect.gen(function* () {
  const won: Array<number> = []
  for (let round = 0; round < Number(rounds); round++) {
    const at = Number(start) + round * Number(every)
    // Spinning, because a timer would not wake all of them together.
    while (performance.timeOrigin + performance.now() < at);
    if (yield* folderLock.acquire(`${directory}/${round}.db`)) won.push(round)
  }
  process.stdout.write(`${won.join(" ")} \n`)
  // The locks are held until everybody has tried and the test ends the process; the bound is for a test that cannot.
  yield* Effect.sleep("60 seconds")
}).pipe(Effect.scoped)

await Effect.runPromise(program)
