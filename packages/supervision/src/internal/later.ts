import * as Exit from "effect/Exit"
import type * as Cause from "effect/Cause"

/** The address of a caller that will be answered later. False from any method: the caller has left. */
export interface From<in A, in E> {
  readonly succeed: (value: A) => boolean
  readonly fail: (error: E) => boolean
  readonly failCause: (cause: Cause.Cause<E>) => boolean
}

/** What a handler returns that answers later. */
export class Later {
  readonly register: (from: From<never, never>) => void

  constructor(register: (from: From<never, never>) => void) {
    this.register = register
  }
}

/** What an init returns that tells its starter more than the state. */
export class Started {
  readonly state: unknown
  readonly info: unknown

  constructor(state: unknown, info: unknown) {
    this.state = state
    this.info = info
  }
}

export const fromOf = (answer: (exit: Exit.Exit<unknown, unknown>) => boolean): From<unknown, unknown> => ({
  succeed: (value) => answer(Exit.succeed(value)),
  fail: (error) => answer(Exit.fail(error)),
  failCause: (cause) => answer(Exit.failCause(cause))
})
