import * as Prompt from "effect/cli/Prompt"
import * as Effect from "effect/Effect"
import * as CommandError from "../CommandError.ts"
import { Output } from "../Output.ts"

/** Asks before `action`, unless that was waived. Where nobody can be asked it fails with the flag that waives it. */
export const confirm = Effect.fnUntraced(function* (yes: boolean, action: string) {
  if (yes) return
  const refused = (asked: boolean) => CommandError.make(new CommandError.NotConfirmed({ action, asked }))
  const output = yield* Output
  if (!output.canPrompt || output.format === "json") return yield* refused(false)
  if (!(yield* Prompt.run(Prompt.Confirm({ message: `${action}?` })))) return yield* refused(true)
})
