import { catalogue, type ChaosFault } from "./catalogue.ts"
import { draw } from "./draw.ts"
import type { Scenario } from "./Scenario.ts"

const pairable = catalogue.filter(({ alone }) => alone !== true)

/** Two faults for one run, drawn from a seed. */
export const pairNames = (first: number, count: number): ReadonlyArray<string> =>
  Array.from({ length: count }, (_, i) => {
    const below = draw("pair", first + i)
    const one = pairable[below(pairable.length)]
    const other = pairable[below(pairable.length)]
    return `${one?.id}+${other?.id}`
  })

const union = (a: ReadonlyArray<string> | undefined, b: ReadonlyArray<string> | undefined) => [
  ...(a ?? []),
  ...(b ?? [])
]

/** What is waited out, read again or sent again, and ends no attempt. */
const passes = /^(?:pause@|(?:delay|drop|lose|mangle|trickle|burst:5\d\d):)/

/** How many things end an attempt: each such part of a plan as often as it says, and what happens to the process. */
const severity = ({ affliction, spec }: Scenario): number =>
  spec
    .split(",")
    .filter((part) => part !== "" && !passes.test(part))
    .reduce((sum, part) => sum + Number(/@\d+x(\d+)/.exec(part)?.[1] ?? 1), affliction === undefined ? 0 : 1)

/**
 * Both at once. What only one run can have (its cadence, what happens to its process) comes from the first one that has it; what
 * would have been quiet with one fault alone is not asked for with two. Three failures in a row that gain no step may end a run as
 * `NoProgress`, two may not. Whoever is started while nothing gets through is told so.
 */
const both = (a: Scenario, b: Scenario): Scenario => {
  const { leastIncidents: _, mostAttempts: __, ...joined } = { ...b, ...a }
  const bad = /truncate|missing|poison-load|poison-step|alter|vanish|empty/
  const spec = [a.spec, b.spec].filter((spec) => spec !== "").join(",")
  const hurt = severity(a) + severity(b)
  return {
    ...joined,
    rl: a.rl && b.rl,
    spec,
    mostAttempts: 2 + 2 * hurt,
    ends: [
      ...union(a.ends, b.ends),
      ...(joined.affliction !== undefined && spec.includes("partition") ? ["Service"] : [])
    ],
    forGood: [
      ...union(a.forGood, b.forGood),
      ...(bad.test(spec) ? ["NoCheckpoint"] : []),
      ...(hurt > 2 ? ["NoProgress"] : [])
    ]
  }
}

const byId = (id: string): ChaosFault | undefined => catalogue.find((fault) => fault.id === id)

/** The scenario of a fault, or of a pair `F1+F19`, and a seed. */
export const named = (name: string, seed: number): Scenario | undefined => {
  const [one, other] = name.split("+").map(byId)
  if (one === undefined) return undefined
  const first = one.scenario(draw(one.id, seed))
  if (!name.includes("+")) return first
  return other === undefined ? undefined : both(first, other.scenario(draw(`${other.id} too`, seed)))
}
