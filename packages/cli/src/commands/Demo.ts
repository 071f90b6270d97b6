/** `tinkex demo`: trains, has a run poisoned, and proves that nothing was lost. */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as CommandError from "../CommandError.ts"
import * as Demo from "../Demo.ts"
import { Output } from "../Output.ts"
import { amount, span } from "../output/Progress.ts"
import * as Report from "../output/Report.ts"

const lines = ({ calm, checks, hashes, incident, stormy }: Demo.DemoResult): ReadonlyArray<string> => [
  "",
  `loss A       ${amount(calm.losses.first ?? Number.NaN)} -> ${amount(calm.losses.last ?? Number.NaN)}`,
  `loss B       ${amount(stormy.losses.first ?? Number.NaN)} -> ${amount(stormy.losses.last ?? Number.NaN)}`,
  ...(incident === undefined
    ? []
    : [
        `incident     ${incident.id}: ${incident.cause} at step ${incident.step}`,
        `             noticed after ${span(incident.timeToDetect)}, back after ${span(incident.timeToRecover)}`,
        `checkpoint   ${incident.path ?? "none"} (step ${incident.resumedAt})`
      ]),
  `state A      ${hashes.calm}`,
  `state B      ${hashes.stormy}`,
  "",
  ...checks.flatMap(({ claim, figures, holds }) => [`${holds ? "✓" : "✗"} ${claim}`, `    ${figures}`])
]

export const demo = Command.make(
  "demo",
  {},
  Effect.fnUntraced(function* () {
    const output = yield* Output
    const result = yield* Demo.run
    const { bound, checks, hashes, replayed } = result
    if (output.format === "json") {
      const runs = { calm: Report.json(result.calm), stormy: Report.json(result.stormy) }
      yield* output.emit({ event: "demo", schemaVersion: 1, ...runs, replayed, bound, hashes, checks })
    } else {
      yield* Effect.forEach(lines(result), output.print, { discard: true })
    }
    const broken = checks.filter(({ holds }) => !holds).map(({ claim }) => `not so: ${claim}`)
    if (broken.length > 0) return yield* CommandError.make(new CommandError.DemoFailed({ checks: broken }))
  })
).pipe(
  Command.withDescription("Fine-tune on an emulated server, have the run poisoned, recover, and compare the weights")
)
