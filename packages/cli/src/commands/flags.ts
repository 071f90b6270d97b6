/** Flags that more than one command has, and checks that say what is wrong with a number. */
import * as Flag from "effect/cli/Flag"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

/** Read from the arguments by `Output`; declared here so that it is documented and checked. */
export const Format = GlobalFlag.Setting("format")({
  flag: Flag.Literals("format", ["text", "table", "json"]).pipe(
    Flag.withDescription("json: one JSON object per line on standard output (default: text)"),
    Flag.optional
  )
})

export const Json = GlobalFlag.Setting("json")({
  flag: Flag.Boolean("json").pipe(Flag.withDescription("The same as --format json"), Flag.withDefault(false))
})

const whole = (name: string, least: number, most: number) =>
  Flag.Int(name).pipe(
    Flag.filter(
      (n) => n >= least && n <= most,
      (n) => `--${name} must be a whole number from ${least} to ${most}, but is ${n}`
    )
  )

/** A whole number with a default. */
export const count = (name: string, what: string, range: readonly [number, number], fallback: number) =>
  whole(name, ...range).pipe(Flag.withDescription(`${what} (default: ${fallback})`), Flag.withDefault(fallback))

/** A whole number that may be left out. */
export const maybeCount = (name: string, what: string, range: readonly [number, number]) =>
  whole(name, ...range).pipe(Flag.withDescription(what), Flag.optional)

/** A number above 0 that may be left out. */
export const positive = (name: string, what: string, most: number) =>
  Flag.Finite(name).pipe(
    Flag.filter(
      (n) => n > 0 && n <= most,
      (n) => `--${name} must be a number above 0 and at most ${most}, but is ${n}`
    ),
    Flag.withDescription(what),
    Flag.optional
  )

export const duration = (name: string, what: string) =>
  Flag.String(name).pipe(Flag.withSchema(Schema.DurationFromString), Flag.withDescription(what), Flag.optional)

export const journal = Flag.String("journal").pipe(
  Flag.withDescription("Folder of the journals (default: ./runs)"),
  Flag.withDefault("./runs")
)

const isUrl = (text: string) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)

/** What stands before an `@` may be a password. */
const shown = (url: string) => (url.includes("@") ? "" : `, but is ${url}`)

export const emulatorUrl = Flag.String("emulator-url").pipe(
  Flag.filter(isUrl, (text) => `--emulator-url must be a URL such as http://127.0.0.1:8080${shown(text)}`),
  Flag.map((text) => text.replace(/\/+$/, "")),
  Flag.withDescription("Talk to the emulator of another process"),
  Flag.optional
)

export const inject = Flag.String("inject").pipe(
  Flag.withDescription("Faults of the emulator, such as corrupt@12,lose:optim_step@3"),
  Flag.optional
)

const keyAndUser = (given: Redacted.Redacted<string>): Option.Option<readonly [Redacted.Redacted<string>, string]> => {
  const [, key, user] = /^((?:tml-|eyJ)[\x21-\x7e]+)=([^=]+)$/.exec(Redacted.value(given)) ?? []
  return key === undefined || user === undefined ? Option.none() : Option.some([Redacted.make(key), user])
}

/** Keys with their users. A key is a secret, also where it is malformed, so it is never said which one is. */
export const keys = Flag.Redacted("key").pipe(
  Flag.filterMap(keyAndUser, () => "--key must be a key, which begins with tml- or eyJ, then = and a user"),
  Flag.withMetavar("KEY=USER"),
  Flag.withDescription("Let this key in, as this user: tml-secret=ann (default: any key, one user)"),
  Flag.atLeast(0)
)

export const orUndefined = Option.getOrUndefined
