import * as Effect from "effect/Effect"
import { invalidOption, JournalError } from "../JournalError.ts"

/** The name becomes a folder, so nothing that could lead out of the journal's directory, or hide in it, is accepted. */
export const isRunName = (run: string): boolean => /^(?!\.)[A-Za-z0-9._-]{1,120}$/.test(run)

export const runName = (run: string): Effect.Effect<string, JournalError> =>
  isRunName(run)
    ? Effect.succeed(run)
    : Effect.fail(
        new JournalError({
          reason: invalidOption("name", run, "must be 1 to 120 of A-Z a-z 0-9 . _ - and must not begin with a dot")
        })
      )
