/**
 * The place of operations in the life of one model.
 *
 * - **SQ1** operations are handed out strictly in the order of their numbers, whatever order they arrive in;
 * - **SQ2** a number belongs to the first payload that claimed it, for the life of the model: the same payload again gets
 *   the same entry, another payload is a conflict;
 * - **SQ3** a number whose submission was refused counts as done, so that it holds up nothing.
 */

export type Claim<A> =
  | { readonly _tag: "Accepted" }
  | { readonly _tag: "Duplicate"; readonly entry: A }
  | { readonly _tag: "Conflict" }

interface Slot<A> {
  readonly digest: string
  readonly entry: A
}

export class Sequence<A> {
  // undefined is a number that was refused.
  private readonly slots = new Map<number, Slot<A> | undefined>()
  private next: number

  constructor(first: number) {
    this.next = first
  }

  /** Lowest number that has not been handed out. */
  get position(): number {
    return this.next
  }

  find(seqId: number, digest: string): Claim<A> {
    const slot = this.slots.get(seqId)
    if (slot !== undefined) {
      return slot.digest === digest ? { _tag: "Duplicate", entry: slot.entry } : { _tag: "Conflict" }
    }
    return seqId < this.next ? { _tag: "Conflict" } : { _tag: "Accepted" }
  }

  /** What holds a number, whatever its payload. */
  owner(seqId: number): A | undefined {
    return this.slots.get(seqId)?.entry
  }

  claim(seqId: number, digest: string, entry: A): void {
    this.slots.set(seqId, { digest, entry })
  }

  /** A refused submission: nothing waits for this number. */
  refuse(seqId: number): void {
    if (seqId >= this.next && !this.slots.has(seqId)) this.slots.set(seqId, undefined)
  }

  /** The next operation in order, if it has arrived. */
  take(): A | undefined {
    while (this.slots.has(this.next)) {
      const slot = this.slots.get(this.next)
      this.next++
      if (slot !== undefined) return slot.entry
    }
    return undefined
  }

  /** Everything that has arrived and was not handed out, in order. */
  get waiting(): Array<A> {
    const numbers = [...this.slots.keys()].filter((seqId) => seqId >= this.next).toSorted((a, b) => a - b)
    return numbers.flatMap((seqId) => {
      const slot = this.slots.get(seqId)
      return slot === undefined ? [] : [slot.entry]
    })
  }
}
