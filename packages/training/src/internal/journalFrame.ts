import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { crc32 } from "node:zlib"
import { JournalRecord, type Stamped } from "../JournalRecord.ts"

const version = 1

/** One line: the CRC-32 of the JSON, its length in bytes, and the JSON. Only reading goes through the schema. */
export const encode = (n: number, epoch: number, millis: number, record: JournalRecord): string => {
  const t = new Date(millis).toISOString()
  const json = JSON.stringify({ v: version, n, epoch, t, record: writable(record) })
  return `${crc32(json).toString(16).padStart(8, "0")} ${Buffer.byteLength(json)} ${json}\n`
}

/** JSON has no word for a loss that is not a number, and a loss that diverged is worth writing down. */
const writable = (record: JournalRecord): unknown => {
  if (!("metrics" in record) || record.metrics === undefined) return record
  if (Object.values(record.metrics).every(Number.isFinite)) return record
  const metrics = Object.entries(record.metrics).map(([key, value]) => [
    key,
    Number.isFinite(value) ? value : String(value)
  ])
  return { ...record, metrics: Object.fromEntries(metrics) }
}

export interface Damage {
  /** A torn tail may be cut; anything else is a reason to stop. */
  readonly torn: boolean
  readonly offset: number
  readonly record: number
  readonly problem: string
}

/** Reads as far as the journal is whole. `bytes` is the length of that part. */
export interface Parsed {
  readonly records: ReadonlyArray<Stamped>
  readonly bytes: number
  readonly damage: Damage | undefined
}

export const parse = (bytes: Buffer): Parsed => {
  const records: Array<Stamped> = []
  let offset = 0
  let epoch = 0
  const stop = (torn: boolean, problem: string): Parsed => ({
    records,
    bytes: offset,
    damage: { torn, offset, record: (records.at(-1)?.n ?? -1) + 1, problem }
  })
  while (offset < bytes.length) {
    const frame = frameAt(bytes, offset)
    const first = records.length === 0
    const expected = (records.at(-1)?.n ?? -1) + 1
    // A compacted journal begins with what all records before it add up to, under the number of the last of them.
    const fits = typeof frame !== "string" && (frame.n === expected || (first && isSnapshot(frame.json)))
    if (!fits) {
      const later = frameFrom(bytes, offset, expected)
      const found = typeof frame === "string" ? frame : `record ${frame.n} stands in its place`
      return later === undefined ? stop(true, found) : stop(false, `${found}, and record ${later} follows it unharmed`)
    }
    const line = decode(frame.json)
    if (Result.isFailure(line)) {
      return stop(
        false,
        `it is whole but not understood, as if a newer version had written it (${line.failure.message})`
      )
    }
    if (line.success.epoch < epoch) {
      return stop(false, `writer ${line.success.epoch} wrote it after writer ${epoch} had taken over`)
    }
    epoch = line.success.epoch
    records.push({ n: frame.n, epoch, t: line.success.t, record: line.success.record })
    offset = frame.end
  }
  return { records, bytes: offset, damage: undefined }
}

const isSnapshot = (json: unknown): boolean =>
  typeof json === "object" &&
  json !== null &&
  "record" in json &&
  typeof json.record === "object" &&
  json.record !== null &&
  "_tag" in json.record &&
  json.record._tag === "Snapshot"

const Line = Schema.toCodecJson(
  Schema.Struct({
    v: Schema.Literal(version),
    n: Schema.Int,
    epoch: Schema.Int,
    t: Schema.DateTimeUtcFromString,
    record: JournalRecord
  })
)
const decode = Schema.decodeUnknownResult(Line)

interface Frame {
  readonly n: number
  readonly end: number
  readonly json: unknown
}

/** The longest header is 8 digits, a blank, 10 digits and a blank. */
const headerBytes = 20
const header = /^([0-9a-f]{8}) (\d{1,10}) /

const frameAt = (bytes: Buffer, offset: number): Frame | string => {
  const head = header.exec(bytes.toString("latin1", offset, offset + headerBytes))
  if (head === null) return "it does not begin like a record"
  const start = offset + head[0].length
  const end = start + Number(head[2])
  if (end >= bytes.length) return "it ends too early"
  if (bytes[end] !== 10) return "it does not end with a line feed"
  const body = bytes.subarray(start, end)
  if (crc32(body) !== Number.parseInt(head[1] ?? "", 16)) return "its checksum is wrong"
  try {
    const json: unknown = JSON.parse(body.toString())
    const n = typeof json === "object" && json !== null && "n" in json && typeof json.n === "number" ? json.n : -1
    return { n, end: end + 1, json }
  } catch {
    return "it is not JSON"
  }
}

/** How a record begins; inside a JSON string the quotes would be escaped. */
const anyFrame = /[0-9a-f]{8} \d{1,10} \{"v":/g

/** The number of the first whole record at or behind `offset` that could only have been written after record `least - 1`. */
const frameFrom = (bytes: Buffer, offset: number, least: number): number | undefined => {
  for (const match of bytes.toString("latin1", offset).matchAll(anyFrame)) {
    const frame = frameAt(bytes, offset + match.index)
    if (typeof frame !== "string" && frame.n >= least) return frame.n
  }
  return undefined
}
