import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type { PlatformError } from "effect/PlatformError"

/** Named groups of small files. A group appears whole or not at all; one file of it can be exchanged, also at once. */
export interface CheckpointFiles {
  /** False when a group of that name exists. The files are written in the given order. */
  readonly create: (
    group: string,
    files: ReadonlyArray<readonly [name: string, bytes: Uint8Array]>
  ) => Effect.Effect<boolean, PlatformError>
  readonly read: (group: string, file: string) => Effect.Effect<Option.Option<Uint8Array>, PlatformError>
  readonly replace: (group: string, file: string, bytes: Uint8Array) => Effect.Effect<void, PlatformError>
  readonly exists: (group: string) => Effect.Effect<boolean, PlatformError>
  readonly remove: (group: string) => Effect.Effect<void, PlatformError>
  readonly groups: Effect.Effect<ReadonlyArray<string>, PlatformError>
}

export const inMemory = (): CheckpointFiles => {
  const groups = new Map<string, Map<string, Uint8Array>>()
  return {
    create: (group, files) =>
      Effect.sync(() => {
        if (groups.has(group)) return false
        groups.set(group, new Map(files))
        return true
      }),
    read: (group, file) => Effect.sync(() => Option.fromNullishOr(groups.get(group)?.get(file)?.slice())),
    replace: (group, file, bytes) => Effect.sync(() => void groups.get(group)?.set(file, bytes)),
    exists: (group) => Effect.sync(() => groups.has(group)),
    remove: (group) => Effect.sync(() => void groups.delete(group)),
    groups: Effect.sync(() => Array.from(groups.keys()))
  }
}

const unfinished = ".writing-"

/** Directories under `root`. What a killed process left half-written is removed here, at the start. */
export const inDirectory = Effect.fnUntraced(function* (root: string) {
  const fs = yield* FileSystem.FileSystem
  const path = (group: string, file?: string) => (file === undefined ? `${root}/${group}` : `${root}/${group}/${file}`)
  yield* fs.makeDirectory(root, { recursive: true })
  for (const entry of yield* fs.readDirectory(root)) {
    if (entry.startsWith(unfinished)) yield* fs.remove(path(entry), { recursive: true, force: true })
  }
  // Renaming makes the group visible; until then its files lie in a directory that no reader looks at.
  const staging = fs.makeTempDirectoryScoped({ directory: root, prefix: unfinished })
  const files: CheckpointFiles = {
    create: Effect.fnUntraced(function* (group, contents) {
      if (yield* fs.exists(path(group))) return false
      const staged = yield* staging
      const directory = `${staged}/${group}`
      yield* fs.makeDirectory(directory)
      for (const [name, bytes] of contents) yield* fs.writeFile(`${directory}/${name}`, bytes)
      yield* fs.rename(directory, path(group))
      return true
    }, Effect.scoped),
    read: (group, file) =>
      fs.readFile(path(group, file)).pipe(
        Effect.map(Option.some),
        Effect.catchReason("PlatformError", "NotFound", () => Effect.succeedNone)
      ),
    replace: Effect.fnUntraced(function* (group, file, bytes) {
      const staged = yield* staging
      yield* fs.writeFile(`${staged}/${file}`, bytes)
      yield* fs.rename(`${staged}/${file}`, path(group, file))
    }, Effect.scoped),
    exists: (group) => fs.exists(path(group)),
    // Moved out of sight first, so that a removal cut short leaves no half of a checkpoint behind.
    remove: Effect.fnUntraced(function* (group) {
      const staged = yield* staging
      yield* fs.rename(path(group), `${staged}/${group}`)
    }, Effect.scoped),
    groups: fs.readDirectory(root).pipe(Effect.map((entries) => entries.filter((entry) => !entry.startsWith("."))))
  }
  return files
})
