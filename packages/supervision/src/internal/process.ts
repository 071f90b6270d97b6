import * as Exit from "effect/Exit"
import type * as Duration from "effect/Duration"
import type { Runnable, System } from "./system.ts"

/** Arranges for `wake`, which may be called from anywhere, and more than once. */
export type Wait = (wake: () => void) => void

/** Sequential work of a supervisor. It yields when it has to wait, and only then. */
export type Steps<A> = Generator<Wait, A, void>

export type AnyExit = Exit.Exit<unknown, unknown>

/** Work that goes on, seen from outside: a fiber or a process. */
export interface Open {
  readonly pollUnsafe: () => AnyExit | undefined
  readonly addObserver: (observer: (exit: AnyExit) => void) => () => void
}

/** Reads a property where `Exit.isExit` would look for one, which costs more than the whole test: it is made at every start. */
export const isOpen = (work: AnyExit | Open): work is Open => (work as Partial<Open>).pollUnsafe !== undefined

const none: ReadonlyArray<never> = []

/** An end that somebody else brings about. */
export class Outcome implements Open {
  private exit: AnyExit | undefined = undefined
  private observers: ReadonlyArray<(exit: AnyExit) => void> = none

  settle(exit: AnyExit): void {
    if (this.exit !== undefined) return
    this.exit = exit
    const { observers } = this
    this.observers = none
    for (const observer of observers) observer(exit)
  }

  pollUnsafe(): AnyExit | undefined {
    return this.exit
  }

  addObserver(observer: (exit: AnyExit) => void): () => void {
    if (this.exit !== undefined) observer(this.exit)
    else this.observers = [...this.observers, observer]
    return () => {
      this.observers = this.observers.filter((known) => known !== observer)
    }
  }
}

/**
 * Runs steps on the run queue of a tree. It replaces a fiber: supervisors have nothing to interrupt, and a step that has not
 * to wait costs no more than a call.
 */
export class Process<A> extends Outcome implements Runnable {
  nextReady: Runnable | undefined = undefined
  private readonly system: System
  private readonly steps: Steps<A>
  private waits = 0

  constructor(system: System, steps: Steps<A>) {
    super()
    this.system = system
    this.steps = steps
  }

  /** Takes the first steps now, on the stack of the caller. */
  start(): this {
    this.step()
    return this
  }

  turn(): number {
    this.step()
    return 1
  }

  private step(): void {
    let result: IteratorResult<Wait, A>
    try {
      result = this.steps.next()
    } catch (defect) {
      return this.settle(Exit.die(defect))
    }
    if (result.done === true) return this.settle(Exit.succeed(result.value))
    const wait = ++this.waits
    result.value(() => {
      if (this.waits !== wait) return
      this.waits++
      this.system.ready(this)
    })
  }
}

/** Lets everything else that waits for its turn go first. */
export const turn: Wait = (wake) => wake()

/** Waits for the end of `open`, at most for `limit`. */
export function* settled(system: System, open: Open, limit: Duration.Duration): Steps<AnyExit | undefined> {
  if (open.pollUnsafe() === undefined) {
    let timer: { readonly cancel: () => void } | undefined
    let forget: (() => void) | undefined
    yield (wake) => {
      forget = open.addObserver(wake)
      timer = system.timer(limit, wake)
    }
    timer?.cancel()
    forget?.()
  }
  return open.pollUnsafe()
}
