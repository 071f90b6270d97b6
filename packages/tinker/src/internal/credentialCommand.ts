/** A shell command that prints the key, for those who keep it in a vault. */
import * as Effect from "effect/Effect"
import { exec, type ExecException } from "node:child_process"
import { InvalidConfig, TinkerError } from "../TinkerError.ts"

export const commandVariable = "TINKER_CREDENTIAL_CMD"

const limitMillis = 60_000

const invalid = (problem: string) => new TinkerError({ reason: new InvalidConfig({ field: commandVariable, problem }) })

/** Why a text cannot be a credential; none where it can. The text is never quoted. */
export const problemOf = (text: string): string | undefined => {
  if (!/^(?:tml-|eyJ)./.test(text)) return "must begin with tml- (an API key) or eyJ (a JWT)"
  // A header cannot carry it, and the error of the platform would quote it.
  if (!/^[\x21-\x7e]+$/.test(text)) return "holds white space or characters that a header cannot carry"
  return undefined
}

const exitOf = (failed: ExecException): string =>
  typeof failed.code === "number" ? `ended with exit code ${failed.code}` : "printed more than 64 kB or was ended"

/** Runs the command and reads what it prints; neither its output nor its complaints are repeated in an error. */
export const run = (command: string): Effect.Effect<string, TinkerError> =>
  Effect.callback<string, TinkerError>((resume) => {
    const child = exec(
      command,
      { killSignal: "SIGKILL", maxBuffer: 64 * 1024, windowsHide: true },
      (failed, stdout) => {
        const text = stdout.trim()
        if (failed !== null) {
          resume(Effect.fail(invalid(`${exitOf(failed)}; run it by hand to see why`)))
        } else if (text === "") {
          resume(Effect.fail(invalid("printed nothing; it must print a key (tml-…) or a JWT (eyJ…)")))
        } else {
          const problem = problemOf(text)
          resume(problem === undefined ? Effect.succeed(text) : Effect.fail(invalid(`printed what ${problem}`)))
        }
      }
    )
    return Effect.sync(() => {
      child.kill("SIGKILL")
    })
  }).pipe(
    Effect.timeoutOrElse({
      duration: limitMillis,
      orElse: () => Effect.fail(invalid(`took longer than ${limitMillis / 1000} s and was ended`))
    })
  )
