import { assert, describe, it } from "@effect/vitest"
import { NodeServices } from "@effect/platform-node"
import { Effect, Exit, Fiber, FileSystem, Option, Stream, Tracer } from "effect"
import * as Tar from "effect/encoding/Tar"
import { TestClock } from "effect/testing"
import { execFileSync } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { gzipSync, zstdCompressSync } from "node:zlib"
import * as CheckpointArchive from "../src/CheckpointArchive.ts"
import type { Progress } from "../src/RestClient.ts"
import type { TinkerError } from "../src/TinkerError.ts"
import * as Archive from "./support/archive.ts"

const path = "tinker://s:train:0/sampler_weights/final"

const folder = Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped({ prefix: "zz-archive-" }))

const onDisk = Effect.provide(NodeServices.layer)

const errorOf = <A>(exit: Exit.Exit<A, TinkerError>) => {
  const found = Exit.isFailure(exit) ? exit.cause.reasons[0] : undefined
  return found?._tag === "Fail" ? found.error : assert.fail(`no failure: ${String(exit)}`)
}

/** Runs an effect to its end while virtual time passes beside what takes real time, the disk for instance. */
const settled = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(effect)
    for (let turn = 0; turn < 20_000 && fiber.pollUnsafe() === undefined; turn++) {
      yield* TestClock.adjust("100 millis")
      yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
    }
    return fiber.pollUnsafe() ?? (yield* Fiber.interrupt(fiber), assert.fail("it never ended"))
  })

const collected = <R>(given: Stream.Stream<Uint8Array, TinkerError, R>) =>
  Effect.map(Stream.runCollect(given), (pieces) => Buffer.concat(pieces))

const random = (length: number) => Buffer.from(Array.from({ length }, (_, i) => (i * 2654435761) >>> 13))

describe("RestClient.streamCheckpointArchive", () => {
  const file = random(1000)

  it.effect("gives the bytes and says how far it is, without telling the place of the file who asks", () =>
    Effect.gen(function* () {
      const place = Archive.withFile(file, () => ({}))
      const told: Array<Progress> = []
      const bytes = yield* collected(Archive.stream(path, { onProgress: (progress) => told.push(progress) })).pipe(
        place.provide
      )
      assert.isTrue(bytes.equals(file))
      assert.deepStrictEqual(told.at(-1), { received: 1000, total: Option.some(1000) })
      assert.deepStrictEqual(
        told.map(({ received }) => received),
        told.map(({ received }) => received).toSorted((a, b) => a - b)
      )
      const [request] = place.requests
      assert.isUndefined(request?.headers["x-api-key"])
      assert.isUndefined(request?.headers["range"])
      assert.strictEqual(request?.headers["accept-encoding"], "identity")
    })
  )

  it.effect(
    "tells the place of the file nothing that was said to the service, and a trace nothing of its address",
    () => {
      const spans: Array<Tracer.NativeSpan> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        }
      })
      return Effect.gen(function* () {
        const place = Archive.withFile(file, () => ({}))
        yield* collected(Archive.stream(path, { headers: { "x-gate": "hunter2" } })).pipe(
          place.provide,
          Effect.withTracer(tracer)
        )
        assert.strictEqual(place.fake.seen.at(-1)?.headers["x-gate"], "hunter2")
        assert.isUndefined(place.requests[0]?.headers["x-gate"])
        const told = spans.map(({ attributes }) => JSON.stringify([...attributes]))
        assert.isTrue(told.some((one) => one.includes("files.test")))
        for (const one of told) assert.notInclude(one, "hunter2")
      })
    }
  )

  it.effect("takes a cut connection up where it ended, however often, and a connection that stands still too", () =>
    Effect.gen(function* () {
      const place = Archive.withFile(file, (nth) =>
        nth < 5 ? { cutAfter: 16 * (nth + 1) } : nth === 5 ? { stallAfter: 32 } : {}
      )
      const exit = yield* settled(collected(Archive.stream(path)).pipe(place.provide))
      assert.isTrue(Exit.isSuccess(exit) && exit.value.equals(file))
      assert.deepStrictEqual(
        place.requests.map(({ headers }) => [headers["range"], headers["if-range"]]),
        [undefined, 16, 48, 96, 160, 240, 272].map((from) => [
          from === undefined ? undefined : `bytes=${from}-`,
          from === undefined ? undefined : '"v1"'
        ])
      )
      assert.strictEqual(place.fake.seen.filter((seen) => seen.path.endsWith("/archive")).length, 1)
    })
  )

  it.effect.each<[string, Archive.Serving]>([
    ["a place that knows no ranges", { ignoreRange: true }],
    ["another file under the same address", { etag: '"v2"' }],
    ["an answer that begins elsewhere", { contentRange: "bytes 5-999/1000" }],
    ["an answer of another length", { contentRange: "bytes 32-4999/5000" }]
  ])("does not put two files together: %s", ([, second]) =>
    Effect.gen(function* () {
      const place = Archive.withFile(file, (nth) => (nth === 0 ? { cutAfter: 32 } : second))
      const error = errorOf(yield* settled(collected(Archive.stream(path)).pipe(place.provide)))
      assert.strictEqual(error.reason._tag, "Transport")
      assert.isTrue(error.isRetryable)
      assert.strictEqual(place.requests.length, 2)
      assert.include(error.message, "32 bytes")
    })
  )

  it.effect("does not go on behind a hole that another reader of the same answer has made", () =>
    Effect.gen(function* () {
      const place = Archive.withFile(file, () => ({ takenAfter: 32 }))
      const error = errorOf(yield* settled(collected(Archive.stream(path)).pipe(place.provide)))
      assert.strictEqual(error.reason._tag, "Transport")
      assert.isTrue(error.isRetryable)
      assert.strictEqual(place.requests.length, 1)
      assert.match(error.message, /32 bytes.*another reader/)
    })
  )

  it.effect("gets a new address where the old one is refused, or has run out", () =>
    Effect.gen(function* () {
      const refusing = Archive.withFile(file, (nth) =>
        nth === 0 ? { cutAfter: 16 } : nth === 1 ? { status: 403 } : {}
      )
      const exit = yield* settled(collected(Archive.stream(path)).pipe(refusing.provide))
      assert.isTrue(Exit.isSuccess(exit) && exit.value.equals(file))
      assert.deepStrictEqual(
        refusing.requests.map(({ url }) => url.at(-1)),
        ["0", "0", "1"]
      )
      // Good for 15 s, of which 10 must be left; the stall takes a minute.
      yield* TestClock.setTime(0)
      const ending = Archive.withFile(
        file,
        (nth) => (nth === 0 ? { stallAfter: 16 } : {}),
        (nth) => new Date(15_000 + nth * 3_600_000).toUTCString()
      )
      yield* settled(collected(Archive.stream(path)).pipe(ending.provide))
      assert.deepStrictEqual(
        ending.requests.map(({ url }) => url.at(-1)),
        ["0", "1"]
      )
    })
  )

  it.effect("gives up: at a refusal of a new address, and when nothing moves for as long as the deadline", () =>
    Effect.gen(function* () {
      const refused = Archive.withFile(file, () => ({ status: 403 }))
      const error = errorOf(yield* settled(collected(Archive.stream(path)).pipe(refused.provide)))
      assert.strictEqual(error.reason._tag, "Forbidden")
      assert.notInclude(JSON.stringify(error) + error.message, "hunter2")
      const stuck = Archive.withFile(file, () => ({ cutAfter: 0 }))
      const ended = errorOf(
        yield* settled(collected(Archive.stream(path, { deadline: "1 minute" })).pipe(stuck.provide))
      )
      assert.strictEqual(ended.reason._tag, "Transport")
      assert.isAtMost(stuck.requests.length, 15)
      assert.notInclude(JSON.stringify(ended) + ended.message, "hunter2")
      const few = Archive.withFile(file, () => ({ cutAfter: 0 }))
      yield* settled(collected(Archive.stream(path, { retries: 2 })).pipe(few.provide))
      assert.strictEqual(few.requests.length, 3)
    })
  )
})

describe("CheckpointArchive.download", () => {
  it.effect("CA1, CA3, CA5 leaves a whole, checked folder and nothing else", () =>
    Effect.gen(function* () {
      const parent = yield* folder
      const file = yield* Archive.archive()
      const place = Archive.withFile(file, (nth) => (nth === 0 ? { cutAfter: 64 } : {}))
      const exit = yield* settled(CheckpointArchive.download(path, `${parent}/final`).pipe(place.provide))
      const contents = Exit.isSuccess(exit) ? exit.value : assert.fail(String(exit))
      assert.deepStrictEqual(readdirSync(parent), ["final"])
      assert.deepStrictEqual(readdirSync(`${parent}/final`).toSorted(), [
        "adapter_config.json",
        "adapter_model.safetensors",
        "checkpoint_complete"
      ])
      assert.deepStrictEqual([contents.rank, contents.loraAlpha, contents.baseModel], [2, 32, Option.some("org/base")])
      assert.deepStrictEqual(contents.tensors.get("base_model.model.layer.lora_B.weight"), {
        dtype: "BF16",
        shape: [3, 2],
        begin: 24,
        end: 36
      })
      assert.isTrue(readFileSync(contents.weightsFile).equals(Archive.weights))
    }).pipe(Effect.scoped, onDisk)
  )

  it.effect("CA2 begins again where the place of the file cannot continue, and gives up after three times", () =>
    Effect.gen(function* () {
      const parent = yield* folder
      const file = yield* Archive.archive()
      const place = Archive.withFile(file, (nth) => (nth === 0 ? { cutAfter: 64 } : { ignoreRange: true }))
      const exit = yield* settled(CheckpointArchive.download(path, `${parent}/final`).pipe(place.provide))
      assert.isTrue(Exit.isSuccess(exit), String(exit))
      // Cut, refused to continue, whole.
      assert.strictEqual(place.requests.length, 3)
      const never = Archive.withFile(file, () => ({ cutAfter: 64, ignoreRange: true }))
      const error = errorOf(yield* settled(CheckpointArchive.download(path, `${parent}/never`).pipe(never.provide)))
      assert.strictEqual(error.reason._tag, "Transport")
      assert.strictEqual(never.requests.length, 6)
      assert.deepStrictEqual(readdirSync(parent), ["final"])
    }).pipe(Effect.scoped, onDisk)
  )

  it.effect("CA3 refuses a folder that is there before it sends anything, and replaces it only with a good one", () =>
    Effect.gen(function* () {
      const parent = yield* folder
      const fs = yield* FileSystem.FileSystem
      yield* fs.makeDirectory(`${parent}/final`)
      yield* fs.writeFileString(`${parent}/final/mine.txt`, "precious")
      const good = yield* Archive.archive()
      const idle = Archive.withFile(good, () => ({}))
      const refused = errorOf(
        yield* Effect.exit(CheckpointArchive.download(path, `${parent}/final`).pipe(idle.provide))
      )
      assert.strictEqual(refused.reason._tag, "LocalFile")
      assert.deepStrictEqual([idle.requests, idle.fake.seen], [[], []])
      const bad = yield* Archive.archive(Archive.checkpointFiles().slice(0, 2))
      const incomplete = Archive.withFile(bad, () => ({}))
      const failed = errorOf(
        yield* settled(
          CheckpointArchive.download(path, `${parent}/final`, { overwrite: true }).pipe(incomplete.provide)
        )
      )
      assert.strictEqual(failed.reason._tag, "BadArchive")
      assert.include(failed.message, "checkpoint_complete")
      assert.deepStrictEqual([readdirSync(parent), readdirSync(`${parent}/final`)], [["final"], ["mine.txt"]])
      const place = Archive.withFile(good, () => ({}))
      yield* settled(CheckpointArchive.download(path, `${parent}/final`, { overwrite: true }).pipe(place.provide))
      assert.deepStrictEqual(readdirSync(parent), ["final"])
      assert.include(readdirSync(`${parent}/final`), "adapter_config.json")
      // A good one is not given up for a bad one either.
      const again = Archive.withFile(bad, () => ({}))
      const kept = yield* settled(
        CheckpointArchive.download(path, `${parent}/final`, { overwrite: true }).pipe(again.provide)
      )
      assert.strictEqual(errorOf(kept).reason._tag, "BadArchive")
      assert.strictEqual((yield* CheckpointArchive.inspect(`${parent}/final`)).rank, 2)
    }).pipe(Effect.scoped, onDisk)
  )

  it.effect("CA3 leaves nothing behind when it is interrupted", () =>
    Effect.gen(function* () {
      const parent = yield* folder
      const place = Archive.withFile(random(1000), () => ({ stallAfter: 500 }))
      const fiber = yield* Effect.forkChild(CheckpointArchive.download(path, `${parent}/final`).pipe(place.provide))
      while (readdirSync(parent).length === 0) {
        yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
      }
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(readdirSync(parent), [])
    }).pipe(Effect.scoped, onDisk)
  )

  it.effect("names a disk that takes nothing", () =>
    Effect.gen(function* () {
      const place = Archive.withFile(yield* Archive.archive(), () => ({}))
      const error = errorOf(yield* settled(CheckpointArchive.download(path, "/proc/nowhere/final").pipe(place.provide)))
      assert.strictEqual(error.reason._tag, "LocalFile")
      assert.match(error.message, /\/proc\/nowhere.*ENOENT/)
    }).pipe(onDisk)
  )

  it.effect.each<[string, CheckpointArchive.UnpackLimits]>([
    ["maxEntries", { maxEntries: 0 }],
    ["maxBytes", { maxBytes: Number.NaN }],
    ["maxRatio", { maxRatio: Number.POSITIVE_INFINITY }]
  ])("refuses the limit %s before it sends anything", ([field, limits]) =>
    Effect.gen(function* () {
      const place = Archive.withFile(new Uint8Array(), () => ({}))
      const error = errorOf(
        yield* Effect.exit(CheckpointArchive.download(path, "/tmp/zz-no-such-folder", limits).pipe(place.provide))
      )
      assert.strictEqual(error.reason._tag === "InvalidInput" && error.reason.field, field)
      assert.deepStrictEqual(place.fake.seen, [])
    }).pipe(onDisk)
  )
})

describe("CheckpointArchive.downloadFile", () => {
  it.effect("keeps the archive as it is", () =>
    Effect.gen(function* () {
      const parent = yield* folder
      const file = random(5000)
      const place = Archive.withFile(file, (nth) => (nth === 0 ? { cutAfter: 640 } : {}))
      const exit = yield* settled(CheckpointArchive.downloadFile(path, `${parent}/a.tar.gz`).pipe(place.provide))
      assert.deepStrictEqual(exit, Exit.succeed(5000))
      assert.isTrue(readFileSync(`${parent}/a.tar.gz`).equals(file))
      const again = errorOf(
        yield* Effect.exit(CheckpointArchive.downloadFile(path, `${parent}/a.tar.gz`).pipe(place.provide))
      )
      assert.strictEqual(again.reason._tag, "LocalFile")
      assert.deepStrictEqual(readdirSync(parent), ["a.tar.gz"])
    }).pipe(Effect.scoped, onDisk)
  )
})

describe("CheckpointArchive.unpack", () => {
  const unpacking = (bytes: Uint8Array, limits?: CheckpointArchive.UnpackLimits) =>
    Effect.gen(function* () {
      const parent = yield* folder
      const fs = yield* FileSystem.FileSystem
      yield* fs.writeFile(`${parent}/a`, bytes)
      const exit = yield* Effect.exit(CheckpointArchive.unpack(`${parent}/a`, `${parent}/out`, limits))
      return { exit, parent, left: readdirSync(parent).toSorted() }
    })

  it.effect("reads plain, gzipped and zstd-compressed tars, with folders in them", () =>
    Effect.gen(function* () {
      const plain = yield* Archive.tar([
        Tar.directory("./"),
        Tar.file("./a.txt", "a"),
        Tar.directory("sub/"),
        Tar.file("sub/deep/b.txt", "b"),
        Tar.file(`long/${"x".repeat(200)}`, "c")
      ])
      for (const bytes of [plain, gzipSync(plain), zstdCompressSync(plain)]) {
        const { exit, parent } = yield* unpacking(bytes)
        assert.deepStrictEqual(exit, Exit.succeed(["a.txt", "sub/deep/b.txt", `long/${"x".repeat(200)}`]))
        assert.strictEqual(readFileSync(`${parent}/out/sub/deep/b.txt`, "utf8"), "b")
      }
    }).pipe(Effect.scoped, onDisk)
  )

  it.effect("reads what the system's tar makes", () =>
    Effect.gen(function* () {
      const parent = yield* folder
      const fs = yield* FileSystem.FileSystem
      yield* fs.makeDirectory(`${parent}/in/sub`, { recursive: true })
      yield* fs.writeFileString(`${parent}/in/a.txt`, "a")
      yield* fs.writeFileString(`${parent}/in/sub/ü.txt`, "u")
      execFileSync("tar", ["-czf", `${parent}/a.tar.gz`, "-C", `${parent}/in`, "."])
      const files = yield* CheckpointArchive.unpack(`${parent}/a.tar.gz`, `${parent}/out`)
      assert.deepStrictEqual([...files].toSorted(), ["a.txt", "sub/ü.txt"])
    }).pipe(Effect.scoped, onDisk)
  )

  it.effect("reads an archive whose own folder is an entry without a name, as Python writes it", () =>
    Effect.gen(function* () {
      const { exit } = yield* unpacking(yield* Archive.archive([Tar.directory("/"), Tar.file("a.txt", "a")]))
      assert.deepStrictEqual(exit, Exit.succeed(["a.txt"]))
    }).pipe(Effect.scoped, onDisk)
  )

  const sound = Tar.file("a.txt", "a")
  const empty = Tar.file("empty", "")
  it.effect.each<[string, ReadonlyArray<Tar.Entry>, string]>([
    ["a path that climbs out", [sound, Tar.file("../evil", "x")], "climbs out"],
    ["one that climbs out later", [Tar.file("a/../../evil", "x")], "climbs out"],
    ["an absolute path", [Tar.file("/tmp/zz-evil", "x")], "absolute"],
    ["an absolute folder", [sound, Tar.directory("/tmp/zz-evil")], "absolute"],
    ["a drive", [Tar.file("C:evil", "x")], "colon"],
    ["a backslash", [Tar.file("..\\evil", "x")], "backslash"],
    ["a symbolic link", [sound, Tar.symlink("link", "/etc")], "Symlink"],
    ["a hard link", [sound, Tar.hardlink("link", "a.txt")], "Hardlink"],
    ["a device", [{ ...empty, header: { ...empty.header, type: "CharDevice" } }], "CharDevice"],
    ["a pipe", [{ ...empty, header: { ...empty.header, type: "Fifo" } }], "Fifo"],
    ["the same name twice", [sound, Tar.file("a.txt", "b")], "twice"],
    ["the same name in other letters", [sound, Tar.file("A.TXT", "b")], "twice"],
    ["the same name spelt otherwise", [Tar.file("\u00e9", "a"), Tar.file("e\u0301", "b")], "twice"],
    ["a file as a folder", [sound, Tar.file("a.txt/b", "b")], "folder"],
    ["a folder as a file", [Tar.file("d/b", "b"), Tar.file("d", "b")], "folder"],
    ["folders without end", [Tar.file(`${"d/".repeat(20)}b`, "b")], "deep"],
    ["a name that is changed", [Tar.file("a.txt.", "b")], "some systems"],
    ["a line end in a name", [Tar.file("a\nb", "b")], "control character"],
    ["no files", [Tar.directory("d")], "no files"]
  ])("CA4 refuses %s, and leaves nothing", ([, entries, problem]) =>
    Effect.gen(function* () {
      const { exit, left } = yield* unpacking(yield* Archive.archive(entries))
      const error = errorOf(exit)
      assert.strictEqual(error.reason._tag, "BadArchive")
      assert.include(error.message, problem)
      assert.deepStrictEqual(left, ["a"])
    }).pipe(Effect.scoped, onDisk)
  )

  it.effect.each<[string, Effect.Effect<Uint8Array, Tar.TarError>, string]>([
    ["text", Effect.succeed(Buffer.from("this is no archive".repeat(100))), "no sound tar"],
    ["nothing", Effect.succeed(new Uint8Array()), "no files"],
    ["a tar that was cut", Effect.map(Archive.tar(Archive.checkpointFiles()), (tar) => tar.subarray(0, 700)), "tar"],
    ["a gzip that was cut", Effect.map(Archive.archive(), (tar) => tar.subarray(0, 60)), "decompressed"],
    [
      "a gzip with a flipped bit",
      Effect.map(Archive.archive(), (tar) => {
        const wrong = Buffer.from(tar)
        wrong[wrong.length - 6] = (wrong[wrong.length - 6] ?? 0) ^ 1
        return wrong
      }),
      "decompressed"
    ],
    ["gzip around text", Effect.sync(() => gzipSync("hello ".repeat(500))), "no sound tar"]
  ])("CA4 says of %s what it is not", ([, bytes, problem]) =>
    Effect.gen(function* () {
      const { exit, left } = yield* unpacking(yield* Effect.orDie(bytes))
      const error = errorOf(exit)
      assert.strictEqual(error.reason._tag, "BadArchive")
      assert.include(error.message, problem)
      assert.deepStrictEqual(left, ["a"])
    }).pipe(Effect.scoped, onDisk)
  )

  it.effect("CA4 limits count, size and swelling, behind the end of the tar too", () =>
    Effect.gen(function* () {
      const many = yield* Archive.archive(Array.from({ length: 12 }, (_, i) => Tar.file(`f${i}`, "x")))
      assert.include(errorOf((yield* unpacking(many, { maxEntries: 11 })).exit).message, "more than 11 entries")
      assert.isTrue(Exit.isSuccess((yield* unpacking(many, { maxEntries: 12 })).exit))
      const large = yield* Archive.archive([Tar.file("a", random(600)), Tar.file("b", random(600))])
      assert.include(errorOf((yield* unpacking(large, { maxBytes: 1199 })).exit).message, "above 1199 bytes")
      assert.isTrue(Exit.isSuccess((yield* unpacking(large, { maxBytes: 1200 })).exit))
      const bomb = yield* Archive.archive([Tar.file("zeros", Buffer.alloc(40 * 1024 * 1024))])
      assert.include(errorOf((yield* unpacking(bomb)).exit).message, "bomb")
      const hidden = gzipSync(Buffer.concat([yield* Archive.tar([sound]), Buffer.alloc(40 * 1024 * 1024)]))
      assert.include(errorOf((yield* unpacking(hidden)).exit).message, "bomb")
    }).pipe(Effect.scoped, onDisk)
  )

  it.effect("refuses a folder that is there", () =>
    Effect.gen(function* () {
      const parent = yield* folder
      const error = errorOf(yield* Effect.exit(CheckpointArchive.unpack(`${parent}/a`, parent)))
      assert.strictEqual(error.reason._tag, "LocalFile")
    }).pipe(Effect.scoped, onDisk)
  )
})

describe("CheckpointArchive.inspect", () => {
  it.effect.each<[string, ReadonlyArray<[string, string | Uint8Array | undefined]>, string]>([
    ["no mark", [["checkpoint_complete", undefined]], "checkpoint_complete"],
    ["no settings", [["adapter_config.json", undefined]], "no adapter_config.json"],
    ["settings that are no JSON", [["adapter_config.json", "{"]], "wrong adapter_config.json"],
    ["settings without a rank", [["adapter_config.json", '{"lora_alpha":1}']], "wrong adapter_config.json"],
    ["a rank of none", [["adapter_config.json", '{"lora_alpha":1,"r":0}']], "wrong adapter_config.json"],
    ["no weights", [["adapter_model.safetensors", undefined]], "no weights"],
    ["cut weights", [["adapter_model.safetensors", Archive.weights.subarray(0, -1)]], "35 bytes of tensors"]
  ])("CA5 refuses a folder with %s", ([, changes, problem]) =>
    Effect.gen(function* () {
      const directory = yield* folder
      const fs = yield* FileSystem.FileSystem
      const files = new Map<string, string | Uint8Array | undefined>([
        ["adapter_config.json", JSON.stringify({ r: 2, lora_alpha: 32 })],
        ["adapter_model.safetensors", Archive.weights],
        ["checkpoint_complete", ""],
        ...changes
      ])
      for (const [name, content] of files) {
        if (typeof content === "string") yield* fs.writeFileString(`${directory}/${name}`, content)
        else if (content !== undefined) yield* fs.writeFile(`${directory}/${name}`, content)
      }
      const error = errorOf(yield* Effect.exit(CheckpointArchive.inspect(directory)))
      assert.strictEqual(error.reason._tag, "BadArchive")
      assert.include(error.message, problem)
    }).pipe(Effect.scoped, onDisk)
  )
})
