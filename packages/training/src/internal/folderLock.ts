import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { pathToFileURL } from "node:url"
import { JournalError, JournalUnwritable } from "../JournalError.ts"

/** SQLite's `SQLITE_BUSY` and `SQLITE_LOCKED`. */
const heldCodes = new Set([5, 6])

/**
 * Takes a lock that the kernel gives up when the process ends, even by `kill -9`, and that a stopped process keeps. Node has no
 * such lock of its own, but the SQLite inside it has: an exclusive transaction on a file that stays empty. Answers `false`
 * at once where it is held, by another process or by this one. Released when the scope closes.
 *
 * Nothing in this process may open the file by other means: closing any descriptor of it would drop the lock.
 */
export const acquire = (path: string): Effect.Effect<boolean, JournalError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: () => import("node:sqlite").then(({ DatabaseSync }) => begin(new DatabaseSync(address(path)))),
      catch: (cause) =>
        new JournalError({
          reason: new JournalUnwritable({
            path,
            operation: "lock",
            problem: cause instanceof Error ? cause.message : String(cause)
          })
        })
    }),
    (lock) => Effect.sync(() => lock?.close())
  ).pipe(Effect.map((lock) => lock !== undefined))

/** The usual way takes a shared lock first, and two that begin together would then refuse each other; `unix-excl` takes one. */
const address = (path: string): URL => {
  const url = pathToFileURL(path)
  if (process.platform !== "win32") url.searchParams.set("vfs", "unix-excl")
  return url
}

const begin = (database: { readonly exec: (sql: string) => void; readonly close: () => void }) => {
  try {
    database.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
    return database
  } catch (error) {
    database.close()
    if (isHeld(error)) return undefined
    throw error
  }
}

const isHeld = (error: unknown): boolean =>
  typeof error === "object" &&
  error !== null &&
  "errcode" in error &&
  typeof error.errcode === "number" &&
  heldCodes.has(error.errcode & 0xff)
