import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as NodeFs from "node:fs"

/** A file that is only ever appended to. */
export interface AppendFile {
  readonly info: Effect.Effect<{ readonly size: number; readonly links: number }, Error>
  /** Appends all of it; gives the number of bytes. */
  readonly write: (text: string) => Effect.Effect<number, Error>
  /** Makes everything written so far durable. */
  readonly sync: Effect.Effect<void, Error>
}

const attempt = <A>(run: () => A): Effect.Effect<A, Error> =>
  Effect.try({ try: run, catch: (cause) => (cause instanceof Error ? cause : new Error(String(cause))) })

const open = (path: string): Effect.Effect<AppendFile, Error, Scope.Scope> =>
  Effect.acquireRelease(
    attempt(() => NodeFs.openSync(path, "a")),
    (fd) => Effect.sync(() => NodeFs.closeSync(fd))
  ).pipe(
    Effect.map((fd) => ({
      info: attempt(() => {
        const { nlink, size } = NodeFs.fstatSync(fd)
        return { size, links: nlink }
      }),
      write: (text) =>
        attempt(() => {
          const bytes = Buffer.from(text)
          for (let done = 0; done < bytes.length;) done += NodeFs.writeSync(fd, bytes, done)
          return bytes.length
        }),
      sync: Effect.callback<void, Error>((resume) => {
        NodeFs.fdatasync(fd, (error) => resume(error === null ? Effect.void : Effect.fail(error)))
      })
    }))
  )

/**
 * How the journal's file is opened for writing. Effect's `FileSystem` has only asynchronous operations: the way to a thread and
 * back costs more than a small write into the page cache or a look at the size, and a step of a run pays for each. Only the
 * flush, which waits for the disk, leaves the thread. A reference, so that a test can let the disk fail.
 */
export const openAppendFile = Context.Reference<typeof open>("@tinkex/training/internal/openAppendFile", {
  defaultValue: () => open
})
