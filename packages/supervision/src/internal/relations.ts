import type { ExitReason } from "../ExitReason.ts"
import type { Child } from "./child.ts"
import { type Target, childOf, generationOf } from "./target.ts"

/** Somebody who is told once of the end of an incarnation. */
export interface Watcher {
  readonly notify: (generation: number, reason: ExitReason) => void
}

/** Two incarnations that share their end. It is gone when one has ended and the other has been told. */
export class Bond {
  readonly one: Child
  readonly other: Child
  /** One has ended, and the other is to be told. */
  fired = false
  /** What is to be told still holds: the link was not cut, and the other has not ended meanwhile. */
  live = true

  constructor(one: Child, other: Child) {
    this.one = one
    this.other = other
  }
}

/** Who watches the present incarnation of a child, and whom it is linked to. */
export class Relations {
  readonly watchers = new Set<Watcher>()
  readonly bonds = new Set<Bond>()

  ended(child: Child, reason: ExitReason, generation = child.generation): void {
    const watchers = Array.from(this.watchers)
    const bonds = Array.from(this.bonds)
    this.watchers.clear()
    this.bonds.clear()
    for (const watcher of watchers) watcher.notify(generation, reason)
    for (const bond of bonds) {
      if (bond.fired) bond.live = false
      else fire(bond, child, reason)
    }
  }
}

/** Tells the other side, on a turn of its own tree, because its end may end others in turn. */
const fire = (bond: Bond, ended: Child, reason: ExitReason): void => {
  const peer = bond.one === ended ? bond.other : bond.one
  bond.fired = true
  peer.owner.system.post(() => {
    peer.extras?.relations?.bonds.delete(bond)
    if (bond.live) peer.linkedExit(ended, reason, bond)
  })
}

export const relationsOf = (child: Child): Relations => (child.rare.relations ??= new Relations())

/** Whether there is an incarnation that can be watched. */
export const isPresent = (child: Child): boolean => child.status === "up" || child.status === "starting"

/** The same for a handle, which may be that of one incarnation only. */
export const isThere = (target: Target): boolean => {
  const child = childOf(target)
  const generation = generationOf(target)
  return generation === undefined ? isPresent(child) : child.status === "up" && child.generation === generation
}

export const bind = (one: Child, other: Child): Bond => {
  for (const bond of relationsOf(one).bonds) {
    if (!bond.fired && (bond.one === other || bond.other === other)) return bond
  }
  const bond = new Bond(one, other)
  relationsOf(one).bonds.add(bond)
  relationsOf(other).bonds.add(bond)
  return bond
}

/** A link to what is not there: it has ended as soon as it is made. */
export const bindToNobody = (one: Child, nobody: Child, reason: ExitReason): void => {
  const bond = new Bond(one, nobody)
  relationsOf(one).bonds.add(bond)
  fire(bond, nobody, reason)
}

/** Nothing arrives any more, not even what waits already. */
export const unbind = (one: Child, other: Child): void => {
  for (const bond of one.extras?.relations?.bonds ?? []) {
    if (bond.one !== other && bond.other !== other) continue
    bond.live = false
    one.extras?.relations?.bonds.delete(bond)
    other.extras?.relations?.bonds.delete(bond)
  }
}
