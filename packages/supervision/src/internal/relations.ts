import type { ExitReason } from "../ExitReason.ts"
import type { Child } from "./child.ts"

/** Somebody who is told once of the end of an incarnation. */
export interface Watcher {
  readonly notify: (generation: number, reason: ExitReason) => void
}

/** Two incarnations that share their end. A link that was cut, or has fired, is dead for good. */
export class Bond {
  readonly one: Child
  readonly other: Child
  cut = false

  constructor(one: Child, other: Child) {
    this.one = one
    this.other = other
  }
}

/** Who watches the present incarnation of a child, and whom it is linked to. */
export class Relations {
  readonly watchers = new Set<Watcher>()
  readonly bonds = new Set<Bond>()

  ended(child: Child, reason: ExitReason): void {
    const watchers = Array.from(this.watchers)
    const bonds = Array.from(this.bonds)
    this.watchers.clear()
    this.bonds.clear()
    for (const watcher of watchers) watcher.notify(child.generation, reason)
    for (const bond of bonds) {
      const peer = bond.one === child ? bond.other : bond.one
      peer.extras?.relations?.bonds.delete(bond)
      if (bond.cut) continue
      // on a turn of the peer's own tree, because its end may end others in turn
      peer.owner.system.post(() => {
        if (bond.cut) return
        bond.cut = true
        peer.linkedExit(child, reason)
      })
    }
  }
}

export const relationsOf = (child: Child): Relations => (child.rare.relations ??= new Relations())

/** Whether there is an incarnation that can be watched. */
export const isPresent = (child: Child): boolean => child.status === "up" || child.status === "starting"

export const bind = (one: Child, other: Child): Bond => {
  for (const bond of relationsOf(one).bonds) {
    if (bond.one === other || bond.other === other) return bond
  }
  const bond = new Bond(one, other)
  relationsOf(one).bonds.add(bond)
  relationsOf(other).bonds.add(bond)
  return bond
}

export const unbind = (one: Child, other: Child): void => {
  for (const bond of one.extras?.relations?.bonds ?? []) {
    if (bond.one !== other && bond.other !== other) continue
    bond.cut = true
    one.extras?.relations?.bonds.delete(bond)
    other.extras?.relations?.bonds.delete(bond)
  }
}
