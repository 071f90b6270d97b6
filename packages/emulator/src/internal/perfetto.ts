/** Traces in the format of Perfetto, as far as they are needed here: named tracks with slices of time. */

export interface Slice {
  readonly name: string
  readonly track: string
  readonly fromMillis: number
  readonly toMillis: number
}

const varint = (value: number): Array<number> => {
  const out: Array<number> = []
  let left = BigInt(Math.max(0, Math.round(value)))
  do {
    const low = Number(left & 127n)
    left >>= 7n
    out.push(left > 0n ? low | 128 : low)
  } while (left > 0n)
  return out
}

const number = (field: number, value: number): Array<number> => [...varint(field * 8), ...varint(value)]
const nested = (field: number, bytes: ReadonlyArray<number> | Uint8Array): Array<number> => [
  ...varint(field * 8 + 2),
  ...varint(bytes.length),
  ...bytes
]
const text = (field: number, value: string): Array<number> => nested(field, new TextEncoder().encode(value))

// Field numbers of the public schema: Trace.packet 1; TracePacket timestamp 8, sequence id 10, track_event 11,
// track_descriptor 60; TrackDescriptor uuid 1, name 2; TrackEvent type 9 (1 begin, 2 end), track_uuid 11, name 23.
const packet = (fields: ReadonlyArray<number>): Array<number> => nested(1, [...number(10, 1), ...fields])

/** One file with a track per name, in the order of their first appearance. */
export const encode = (slices: ReadonlyArray<Slice>): Uint8Array => {
  const tracks = new Map<string, number>()
  const packets: Array<Array<number>> = []
  for (const { track } of slices) {
    if (tracks.has(track)) continue
    const uuid = tracks.size + 1
    tracks.set(track, uuid)
    packets.push(packet(nested(60, [...number(1, uuid), ...text(2, track)])))
  }
  for (const { fromMillis, name, toMillis, track } of slices) {
    const uuid = number(11, tracks.get(track) ?? 0)
    packets.push(
      packet([...number(8, fromMillis * 1e6), ...nested(11, [...number(9, 1), ...uuid, ...text(23, name)])]),
      packet([...number(8, toMillis * 1e6), ...nested(11, [...number(9, 2), ...uuid])])
    )
  }
  return Uint8Array.from(packets.flat())
}
