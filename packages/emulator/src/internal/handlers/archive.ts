/** The files of a checkpoint as one archive, and the trace of a session: made in a while, fetched by a signed URL. */
import { createHash } from "node:crypto"
import { gzipSync } from "node:zlib"
import * as Effect from "effect/Effect"
import * as Tar from "effect/encoding/Tar"
import * as Stream from "effect/Stream"
import type { CheckpointFile } from "../../CheckpointStore.ts"
import { storeId } from "../catalog.ts"
import * as Perfetto from "../perfetto.ts"
import { json, ok, refused, type Reply } from "../reply.ts"
import type { World } from "../world.ts"
import { readable } from "./checkpoints.ts"
import type { Handler } from "./session.ts"

/** How long a URL of an archive is good for. */
const archiveMillis = 15 * 60_000
/** And one of a trace. */
const traceMillis = 3_600_000

/** The same files make the same bytes: entries have no times. */
const pack = (files: ReadonlyArray<CheckpointFile>): Effect.Effect<Uint8Array> =>
  Stream.fromIterable(files.map(({ bytes, name }) => Tar.file(name, bytes))).pipe(
    Stream.pipeThroughChannel(Tar.encode()),
    Stream.runCollect,
    Effect.map((parts) => gzipSync(Buffer.concat(parts))),
    // Names and sizes are those of files that were read.
    Effect.orDie
  )

const building = (readyAt: number, now: number): Reply =>
  json(
    503,
    { detail: "The archive is being built; ask again" },
    { headers: { "retry-after": `${Math.max(1, Math.min(60, Math.ceil((readyAt - now) / 1000)))}` } }
  )

export const archive: Handler = (world, request, parameters) =>
  Effect.gen(function* () {
    const { record, run } = yield* readable(world, request, parameters)
    const stored = storeId(run.id, record.kind, record.name)
    const id = `${createHash("sha256").update(`${stored}|${record.savedAt}`).digest("hex").slice(0, 32)}.tar.gz`
    const readyAt = world.builtAt(id)
    if (readyAt > world.now()) return building(readyAt, world.now())
    if (!world.downloads.has(id)) {
      const files = yield* Effect.mapError(world.store.files(stored), (error) =>
        // Asking again would not help, so it is none of the 5xx that clients wait for.
        refused(404, `Checkpoint ${record.kind}/${record.name} of ${run.id} has no archive: ${error.message}`)
      )
      world.downloads.put(id, { bytes: yield* pack(files), contentType: "application/gzip" })
    }
    const { expires, url } = world.downloads.sign(request, id, archiveMillis)
    return world.settings.archiveReply === "json"
      ? ok({ url, expires: expires.toISOString() })
      : { status: 302, contentType: "text/plain", body: "", headers: { location: url, expires: expires.toUTCString() } }
  })

const traceOf = (world: World, sessionId: string) => {
  const { openedAt, trace = [] } = world.sessions.get(sessionId) ?? { openedAt: world.now() }
  const whole = { name: "session", track: sessionId, fromMillis: openedAt, toMillis: world.now() }
  return Perfetto.encode([whole, ...trace])
}

export const traceExport: Handler = (world, request, [id = ""]) =>
  Effect.gen(function* () {
    const session = world.sessions.get(id)
    if (session === undefined || session.owner !== request.user) {
      return yield* Effect.fail(refused(404, `Session ${id} not found`))
    }
    const file = `${id}.pftrace`
    if (world.builtAt(file) > world.now()) return ok({ status: "pending" })
    world.downloads.put(file, { bytes: traceOf(world, id), contentType: "application/octet-stream" })
    return ok({ status: "ready", url: world.downloads.sign(request, file, traceMillis).url })
  })
