/**
 * A file of JSON lines that is only added to. A line is in the hands of the operating system before `append` returns. A last
 * line that is cut short was told to nobody and is left out; anything else that cannot be read stops the start.
 */
import * as NodeFs from "node:fs"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { EmulatorError, StorageFailed } from "../EmulatorError.ts"

export interface LineLog<A> {
  /** What earlier processes have left, oldest first. */
  readonly earlier: ReadonlyArray<A>
  readonly append: (line: A) => void
}

/** Keeps nothing. */
export const none = <A>(): LineLog<A> => ({ earlier: [], append: () => undefined })

const textOf = (line: unknown): string => `${JSON.stringify(line)}\n`

const readAll = <A>(file: string, decode: (line: string) => A): ReadonlyArray<A> => {
  if (!NodeFs.existsSync(file)) return []
  const text = NodeFs.readFileSync(file, "utf8")
  return text
    .slice(0, text.lastIndexOf("\n") + 1)
    .split("\n")
    .filter((line) => line !== "")
    .map(decode)
}

/** Opens a log; what `keep` leaves out of the earlier lines is forgotten. */
export const open = <A>(options: {
  readonly file: string
  readonly line: Schema.Codec<A, A>
  readonly keep: (earlier: ReadonlyArray<A>) => ReadonlyArray<A>
}): Effect.Effect<LineLog<A>, EmulatorError, Scope.Scope> => {
  const { file } = options
  const decode = Schema.decodeUnknownSync(Schema.fromJsonString(options.line))
  const opening = Effect.try({
    try: () => {
      const earlier = options.keep(readAll(file, decode))
      const aside = `${file}.new`
      NodeFs.writeFileSync(aside, earlier.map(textOf).join(""))
      NodeFs.renameSync(aside, file)
      return { earlier, descriptor: NodeFs.openSync(file, "a") }
    },
    catch: (cause) =>
      new EmulatorError({
        reason: new StorageFailed({ path: file, problem: cause instanceof Error ? cause.message : String(cause) })
      })
  })
  return Effect.acquireRelease(opening, ({ descriptor }) => Effect.sync(() => NodeFs.closeSync(descriptor))).pipe(
    Effect.map(({ descriptor, earlier }) => ({
      earlier,
      append: (line) => void NodeFs.writeSync(descriptor, textOf(line))
    }))
  )
}
