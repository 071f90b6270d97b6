/**
 * Where words go. Standard output carries what was asked for (a report, a table, one JSON object per line) and nothing else;
 * progress, notes, logs and errors go to standard error. Escape codes and carriage returns appear only on a terminal that
 * wants them: not with `NO_COLOR`, `CI` or `TERM=dumb`, and never in JSON mode.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

export type Format = "text" | "json"

export interface OutputShape {
  readonly format: Format
  /** The status line may be redrawn in place. */
  readonly animated: boolean
  /** A question may be asked. */
  readonly canPrompt: boolean
  /** A line of what was asked for. */
  readonly print: (line: string) => Effect.Effect<void>
  /** The same as one JSON object on one line. */
  readonly emit: (value: unknown) => Effect.Effect<void>
  /** A line for the person who watches. */
  readonly note: (line: string) => Effect.Effect<void>
  /** Replaces the status line; does nothing where it cannot be redrawn. */
  readonly status: (line: string) => Effect.Effect<void>
}

export class Output extends Context.Service<Output, OutputShape>()("@tinkex/cli/Output") {
  /** The standard streams of this process. */
  static readonly layer = (args: ReadonlyArray<string>): Layer.Layer<Output> =>
    Layer.sync(Output, () =>
      make({
        format: formatOf(args),
        env: process.env,
        stdinIsTerminal: process.stdin.isTTY,
        stderr: {
          isTerminal: process.stderr.isTTY,
          columns: () => process.stderr.columns,
          write: (text) => process.stderr.write(text)
        },
        stdout: (text) => process.stdout.write(text)
      })
    )
}

/** Read from the arguments as they are, so that even a refused command line is answered in the format it asks for. */
export const formatOf = (args: ReadonlyArray<string>): Format =>
  args.includes("--json") ||
  args.includes("--format=json") ||
  args.some((arg, i) => arg === "--format" && args[i + 1] === "json")
    ? "json"
    : "text"

const clear = "\r\u001B[2K"

export const make = (options: {
  readonly format: Format
  readonly env: Readonly<Record<string, string | undefined>>
  readonly stdinIsTerminal: boolean
  readonly stderr: {
    readonly isTerminal: boolean
    readonly columns: () => number | undefined
    readonly write: (text: string) => void
  }
  readonly stdout: (text: string) => void
}): OutputShape => {
  const { env, format, stderr } = options
  const plain =
    [env["NO_COLOR"], env["CI"]].some((value) => value !== undefined && value !== "") || env["TERM"] === "dumb"
  const animated = format === "text" && stderr.isTerminal && !plain
  let status = ""

  // Whatever is written while a status line stands must first take its place.
  const around = (write: () => void) =>
    Effect.sync(() => {
      if (status !== "") stderr.write(clear)
      write()
      if (status !== "") stderr.write(status)
    })

  return {
    format,
    animated,
    canPrompt: options.stdinIsTerminal && stderr.isTerminal,
    print: (line) => around(() => options.stdout(`${line}\n`)),
    emit: (value) => around(() => options.stdout(`${JSON.stringify(value)}\n`)),
    note: (line) => around(() => stderr.write(`${line}\n`)),
    status: (line) =>
      Effect.sync(() => {
        if (!animated) return
        // A terminal that does not know its width says 0.
        status = line.slice(0, (stderr.columns() || 80) - 1)
        stderr.write(`${clear}${status}`)
      })
  }
}
