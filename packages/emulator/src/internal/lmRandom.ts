import { createHash } from "node:crypto"

/**
 * A stream of uniform numbers in [-1, 1) that depends on the label only (sfc32 seeded by sha-256). Additions, shifts and
 * one exact division: the same bits on every machine.
 */
export const uniformStream = (label: string): (() => number) => {
  const seed = createHash("sha256").update(label).digest()
  let a = seed.readInt32LE(0)
  let b = seed.readInt32LE(4)
  let c = seed.readInt32LE(8)
  let counter = seed.readInt32LE(12)
  return () => {
    const out = (((a + b) | 0) + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = ((c << 21) | (c >>> 11)) + out
    c |= 0
    return out / 0x80000000
  }
}

/** An array with zero mean and the given standard deviation, uniformly distributed. */
export const uniformArray = (label: string, length: number, deviation: number): Float64Array => {
  const next = uniformStream(label)
  const scale = deviation * Math.sqrt(3)
  const out = new Float64Array(length)
  for (let i = 0; i < length; i++) out[i] = next() * scale
  return out
}
