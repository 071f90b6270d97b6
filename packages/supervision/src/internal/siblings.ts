import type { Child } from "./child.ts"

/** The children of a dynamic supervisor in start order, linked through themselves: each joins and leaves at the same cost. */
export class Siblings {
  size = 0
  private first: Child | undefined = undefined
  private last: Child | undefined = undefined

  /** For a child of this supervisor. */
  has(child: Child): boolean {
    return child === this.first || child.older !== undefined
  }

  add(child: Child): void {
    const { last } = this
    if (last === undefined) {
      this.first = child
    } else {
      last.younger = child
      child.older = last
    }
    this.last = child
    this.size++
  }

  delete(child: Child): void {
    if (!this.has(child)) return
    const { older, younger } = child
    if (older === undefined) this.first = younger
    else older.younger = younger
    if (younger === undefined) this.last = older
    else younger.older = older
    child.older = undefined
    child.younger = undefined
    this.size--
  }

  /** Those that there are when their turn comes. */
  *[Symbol.iterator](): Iterator<Child> {
    let at = this.first
    while (at !== undefined) {
      const { younger }: Child = at
      yield at
      at = younger
    }
  }

  clear(): void {
    for (const child of this) {
      child.older = undefined
      child.younger = undefined
    }
    this.first = undefined
    this.last = undefined
    this.size = 0
  }
}
