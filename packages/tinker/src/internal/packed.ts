/** Arrays of numbers as little-endian bytes. */

/** What reading bytes throws inside its module, and what writing throws to its caller. */
export class Malformed extends Error {}

const viewBytes = (array: ArrayBufferView): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength)

/** Memory that is used over and over while much is written; what is made in it holds until the next use. */
export class Scratch {
  private words = new Int32Array(0)

  take(length: number): Int32Array<ArrayBuffer> {
    if (this.words.length < length) this.words = new Int32Array(length)
    return this.words.subarray(0, length)
  }
}

const wordsOf = (length: number, scratch: Scratch | undefined): Int32Array<ArrayBuffer> =>
  scratch === undefined ? new Int32Array(length) : scratch.take(length)

export const f32Bytes = (values: ArrayLike<number>, scratch?: Scratch): Uint8Array => {
  if (values instanceof Float32Array) return viewBytes(values)
  const words = wordsOf(values.length, scratch)
  new Float32Array(words.buffer, words.byteOffset, words.length).set(values)
  return viewBytes(words)
}

export const i32Bytes = (values: ArrayLike<number>, what: string, scratch?: Scratch): Uint8Array => {
  if (values instanceof Int32Array) return viewBytes(values)
  const words = wordsOf(values.length, scratch)
  for (let i = 0; i < words.length; i++) {
    // The index is below the length.
    const value = values[i] as number
    if ((value | 0) !== value) throw new Malformed(`${what} has ${value} at ${i}, which is no 32-bit whole number`)
    words[i] = value
  }
  return viewBytes(words)
}

/** Two 32-bit halves a value: several times faster than BigInt64Array, and exact below 2^53. */
export const i64Bytes = (values: ArrayLike<number>, what: string, scratch?: Scratch): Uint8Array => {
  const halves = wordsOf(values.length * 2, scratch)
  for (let i = 0; i < values.length; i++) {
    // The index is below the length.
    const value = values[i] as number
    if ((value | 0) === value) {
      halves[2 * i] = value
      halves[2 * i + 1] = value >> 31
      continue
    }
    if (!Number.isSafeInteger(value)) {
      throw new Malformed(`${what} has ${value} at ${i}, which is no whole number below 2^53`)
    }
    halves[2 * i] = value
    halves[2 * i + 1] = Math.floor(value / 4294967296)
  }
  return viewBytes(halves)
}

/** A copy that starts at an even address, as typed arrays need it; not by `slice`, which on a `Buffer` is a view. */
const aligned = (bytes: Uint8Array, item: number, what: string): ArrayBuffer => {
  if (bytes.byteLength % item !== 0) {
    throw new Malformed(`${what} has ${bytes.byteLength} bytes, no multiple of ${item}`)
  }
  return new Uint8Array(bytes).buffer
}

export const readF32 = (bytes: Uint8Array, what: string): Float32Array => new Float32Array(aligned(bytes, 4, what))
export const readI32 = (bytes: Uint8Array, what: string): Int32Array => new Int32Array(aligned(bytes, 4, what))

export const readI64 = (bytes: Uint8Array, what: string): Float64Array => {
  const halves = new Int32Array(aligned(bytes, 8, what))
  const out = new Float64Array(halves.length / 2)
  for (let i = 0; i < out.length; i++) {
    const value = (halves[2 * i + 1] as number) * 4294967296 + ((halves[2 * i] as number) >>> 0) // both indices exist
    if (!Number.isSafeInteger(value)) throw new Malformed(`${what} holds a number beyond 2^53`)
    out[i] = value
  }
  return out
}

/** 64-bit numbers as they are: slower, and for those that `readI64` refuses. */
export const readBigI64 = (bytes: Uint8Array, what: string): BigInt64Array => new BigInt64Array(aligned(bytes, 8, what))

/** Whether all are whole numbers up to 2^53, which a number holds exactly. */
export const allSafe = (bytes: Uint8Array): boolean => {
  const halves = new Int32Array(aligned(bytes, 4, "a tensor"))
  for (let i = 1; i < halves.length; i += 2) {
    const high = halves[i] as number // the index is below the length
    if (high >= 0x200000 || high < -0x200000 || (high === -0x200000 && halves[i - 1] === 0)) return false
  }
  return true
}

export const readBf16 = (bytes: Uint8Array, what: string): Float32Array => {
  const halves = new Uint16Array(aligned(bytes, 2, what))
  const words = new Uint32Array(halves.length)
  for (let i = 0; i < halves.length; i++) words[i] = (halves[i] as number) << 16 // the index is below the length
  return new Float32Array(words.buffer)
}
