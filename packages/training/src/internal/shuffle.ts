import { createHash } from "node:crypto"

/**
 * The order of `length` rows in one epoch: Fisher-Yates, driven by xoshiro128** (Blackman and Vigna, 2018), whose 128 bits of
 * state are the first 16 bytes of the SHA-256 of `tinkex/shuffle/1/<seed>/<epoch>`, little-endian. A bounded number is drawn
 * by rejection, so every order is equally likely. Fixed for ever: a resumed run must see the order of the process before it.
 */
export const shuffled = (length: number, seed: number, epoch: number): Uint32Array => {
  const next = generator(`tinkex/shuffle/1/${seed}/${epoch}`)
  const order = Uint32Array.from({ length }, (_, index) => index)
  for (let i = length - 1; i > 0; i--) {
    const j = below(next, i + 1)
    const moved = order[i] ?? 0
    order[i] = order[j] ?? 0
    order[j] = moved
  }
  return order
}

/** Whole numbers of 32 bits, for ever the same for the same text. */
export const generator = (text: string): (() => number) => {
  const bytes = createHash("sha256").update(text).digest()
  let a = bytes.readUInt32LE(0)
  let b = bytes.readUInt32LE(4)
  let c = bytes.readUInt32LE(8)
  let d = bytes.readUInt32LE(12)
  return () => {
    const result = Math.imul(rotated(Math.imul(b, 5), 7), 9) >>> 0
    const shifted = b << 9
    c ^= a
    d ^= b
    b ^= c
    a ^= d
    c ^= shifted
    d = rotated(d, 11)
    return result
  }
}

const rotated = (value: number, by: number): number => (value << by) | (value >>> (32 - by))

export const below = (next: () => number, bound: number): number => {
  const limit = 2 ** 32 - (2 ** 32 % bound)
  let value = next()
  while (value >= limit) value = next()
  return value % bound
}
