import * as Duration from "effect/Duration"
import * as ExitReason from "../ExitReason.ts"
import type { Node } from "../SupervisionTree.ts"
import { Addressee } from "./addressee.ts"
import type { Child } from "./child.ts"
import { statusOf } from "./childInfo.ts"

/** What a supervisor adds to its own node. */
export interface Branch {
  readonly members: () => Iterable<Child>
  readonly intensity: NonNullable<Node["intensity"]> | undefined
}

const isBranch = (child: Child): child is Child & Branch => child.kind === "supervisor"

/** Reads a child and everything below it in one step. */
export const snapshotOf = (child: Child): Node => {
  const { extras, generation, id, kind, lastExit: last, path, since } = child
  const status = statusOf(child)
  const capacity = child instanceof Addressee ? child.definition.capacity : 0
  const branch = isBranch(child) ? child : undefined
  const age = Math.max(0, Math.floor(child.owner.system.now()) - since)
  return {
    path,
    id,
    kind,
    status,
    restart: child.settings.restart,
    generation,
    ...(status === "running" ? { age } : {}),
    restarts: extras?.restarts ?? 0,
    ...(branch?.intensity === undefined ? {} : { intensity: branch.intensity }),
    ...(status === "restarting" && extras !== undefined && extras.attempts > 0 ? { attempt: extras.attempts } : {}),
    ...(last === undefined ? {} : { lastExit: ExitReason.format(last) }),
    ...(child instanceof Addressee
      ? { mailbox: { depth: child.depth, capacity: Number.isFinite(capacity) ? capacity : ("unbounded" as const) } }
      : {}),
    ...(extras?.suspended === true ? { suspended: true } : {}),
    zombies: extras?.zombies ?? 0,
    children: branch === undefined ? [] : Array.from(branch.members(), snapshotOf)
  }
}

export const spentOf = (
  intensity: { readonly spent: (now: number) => number } | undefined,
  limits: { readonly restarts: number; readonly within: Duration.Duration },
  now: number
): NonNullable<Node["intensity"]> => ({
  spent: intensity?.spent(now) ?? 0,
  restarts: limits.restarts,
  within: Duration.toMillis(limits.within)
})
