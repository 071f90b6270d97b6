import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import { CallError, NoProcess } from "../CallError.ts"
import * as ExitReason from "../ExitReason.ts"
import type { Addressee } from "./addressee.ts"
import { Cast } from "./cast.ts"
import type { DeadlineList } from "./deadlines.ts"
import type { Operation } from "./definition.ts"
import type { Incarnation } from "./incarnation.ts"
import { TargetId } from "./target.ts"

const defaultLimit = Duration.seconds(5)

type AnyEffect = Effect.Effect<unknown, unknown>

class Call extends Effectable.Class<unknown, unknown> {
  private readonly ref: Ref
  private readonly operation: Operation
  private readonly payload: unknown

  constructor(ref: Ref, operation: Operation, payload: unknown) {
    super()
    this.ref = ref
    this.operation = operation
    this.payload = payload
  }

  override asEffect(): AnyEffect {
    const { operation, payload, ref } = this
    return Effect.callback((settle) => ref[TargetId].call(operation, payload, ref.list, settle))
  }
}

interface Stop extends Effect.Effect<unknown, unknown> {
  readonly actor: Addressee
  readonly reason: ExitReason.ExitReason
  readonly generation: number | undefined
}

const Stop = function (
  this: { -readonly [K in "actor" | "reason" | "generation"]: Stop[K] },
  actor: Addressee,
  reason: ExitReason.ExitReason,
  generation: number | undefined
) {
  this.actor = actor
  this.reason = reason
  this.generation = generation
} as unknown as new (...args: [actor: Addressee, reason: ExitReason.ExitReason, generation: number | undefined]) => Stop // a class could not take this prototype

Stop.prototype = Effectable.Prototype<Stop>({
  label: "ActorStop",
  evaluate(sender) {
    const { actor, generation, reason } = this
    if (!actor.stopNow(sender, reason, generation)) {
      return Effect.callback((settle) => actor.stop(reason, generation, settle))
    }
    const { system } = actor.owner
    // where its supervisor has still to deal with the end, that comes first
    return system.isIdle ? Exit.void : Effect.callback((settle) => system.post(() => settle(Exit.void)))
  }
})

type Client = Record<string, (payload: unknown) => AnyEffect>

const request = (name: string, run: (self: Incarnation, payload: unknown, actor: Addressee) => unknown) => ({
  name,
  run
})

const getState = request("getState", (self) => self.state)
const replaceState = request("replaceState", (self, change) => {
  try {
    return (self.state = (change as (state: unknown) => unknown)(self.state)) // checked where it was passed
  } catch (error) {
    return new Refused(error)
  }
})
const suspend = request("suspend", (_self, _payload, actor) => {
  actor.rare.suspended = true
})
const resume = request("resume", (_self, _payload, actor) => {
  actor.rare.suspended = false
})
const identify = request("incarnation", (self) => self.generation)

/** A change of state that threw: its caller dies of it, the actor goes on as it was. */
class Refused {
  readonly error: unknown

  constructor(error: unknown) {
    this.error = error
  }
}

/** What the `call` and the `cast` of a ref show: the handlers of an actor class, as functions. */
export type Handlers = new (ref: Ref) => Client

/**
 * Neither such an object nor its functions are kept. They are called where they are asked for as a rule, and then compiled
 * code makes none of them; kept ones lie in memory that every message would have to wait for.
 */
const handlersOf = (
  operations: ReadonlyArray<Operation>,
  Request: new (ref: Ref, operation: Operation, payload: unknown) => AnyEffect
): Handlers => {
  const Handlers = function (this: { "~ref": Ref }, ref: Ref) {
    this["~ref"] = ref // neither private nor a symbol: V8 knows such a property by its name alone, whatever class it is of
  }
  for (const operation of operations) {
    Object.defineProperty(Handlers.prototype, operation.name, {
      get(this: { readonly "~ref": Ref }) {
        const ref = this["~ref"]
        return (payload: unknown): AnyEffect => new Request(ref, ref.bound(operation), payload)
      }
    })
  }
  return Handlers as unknown as Handlers // it has the properties that were defined above
}

export const callsOf = (operations: ReadonlyArray<Operation>): Handlers => handlersOf(operations, Call)
export const castsOf = (operations: ReadonlyArray<Operation>): Handlers => handlersOf(operations, Cast)

/** It keeps who it is for and nothing else: refs travel, and there are many of them. */
class Ref {
  readonly #actor: Addressee
  readonly #limit: Duration.Duration
  readonly generation: number | undefined
  #list: DeadlineList | undefined = undefined

  constructor(actor: Addressee, limit: Duration.Duration, generation: number | undefined) {
    this.#actor = actor
    this.#limit = limit
    this.generation = generation
  }

  get call(): Client {
    return new this.#actor.definition.Calls(this)
  }

  get cast(): Client {
    return new this.#actor.definition.Casts(this)
  }

  get [TargetId](): Addressee {
    return this.#actor
  }

  get id(): string {
    return this.#actor.id
  }

  get path(): string {
    return this.#actor.path
  }

  get list(): DeadlineList | undefined {
    return (this.#list ??= this.#actor.owner.system.deadline(this.#limit))
  }

  /** An operation for whichever incarnation there is, or for the one that this ref means. */
  bound(operation: Operation): Operation {
    return this.generation === undefined ? operation : { ...operation, generation: this.generation, special: true }
  }

  within(limit: Duration.Input): Ref {
    return new Ref(this.#actor, Duration.fromInputUnsafe(limit), this.generation)
  }

  get stop(): AnyEffect {
    return this.stopWith(ExitReason.normal)
  }

  stopWith(reason: ExitReason.ExitReason): AnyEffect {
    return new Stop(this.#actor, reason, this.generation)
  }

  get kill(): AnyEffect {
    return Effect.sync(() => {
      if (this.generation === undefined || this.generation === this.#actor.generation)
        this.#actor.kill(ExitReason.killed)
    })
  }

  #ask(
    { name, run }: { name: string; run: (self: Incarnation, payload: unknown, actor: Addressee) => unknown },
    payload?: unknown
  ): AnyEffect {
    const actor = this.#actor
    const operation = this.bound({
      name,
      reply: true,
      run: (self, payload) => run(self as Incarnation, payload, actor), // only incarnations run operations
      generation: undefined,
      special: false
    })
    return Effect.callback((settle) => actor.ask(operation, payload, this.list, settle))
  }

  get getState(): AnyEffect {
    return this.#ask(getState)
  }

  replaceState(change: (state: unknown) => unknown): AnyEffect {
    return Effect.flatMap(this.#ask(replaceState, change), (state) =>
      state instanceof Refused ? Effect.die(state.error) : Effect.succeed(state)
    )
  }

  get suspend(): AnyEffect {
    return this.#ask(suspend)
  }

  get resume(): AnyEffect {
    return this.#ask(resume)
  }

  get incarnation(): AnyEffect {
    return Effect.map(this.#ask(identify), (generation) => new Ref(this.#actor, this.#limit, generation as number)) // as asked
  }
}

export const makeRef = (actor: Addressee, generation?: number): unknown => new Ref(actor, defaultLimit, generation)

/** A ref that looks for its actor anew with every message. */
export const makeNamedRef = (
  name: string,
  definition: Addressee["definition"],
  find: () => Addressee | undefined,
  limit: Duration.Duration = defaultLimit
): unknown => {
  const ref = (): Ref | undefined => {
    const actor = find()
    return actor === undefined ? undefined : new Ref(actor, limit, undefined)
  }
  const ask = (operation: string, use: (ref: Ref) => AnyEffect): AnyEffect =>
    Effect.suspend(() => {
      const found = ref()
      if (found !== undefined) return use(found)
      return Exit.fail(new CallError({ reason: new NoProcess({ target: name, operation }) }))
    })
  /** Whoever is watched or linked to while the name belongs to nobody. */
  const nobody = { id: name, path: name, status: "stopped", generation: 0 }
  const call: Client = {}
  const cast: Client = {}
  for (const { name } of definition.calls)
    call[name] = (payload) => ask(name, (ref) => ref.call[name]?.(payload) ?? Effect.void)
  for (const { name } of definition.casts) {
    cast[name] = (payload) => Effect.suspend(() => ref()?.cast[name]?.(payload) ?? Effect.void)
  }
  return {
    get [TargetId]() {
      return find() ?? nobody
    },
    id: name,
    path: name,
    call,
    cast,
    within: (limit: Duration.Input) => makeNamedRef(name, definition, find, Duration.fromInputUnsafe(limit)),
    stop: ask("stop", (ref) => ref.stop),
    stopWith: (reason: ExitReason.ExitReason) => ask("stop", (ref) => ref.stopWith(reason)),
    kill: Effect.suspend(() => ref()?.kill ?? Effect.void),
    getState: ask("getState", (ref) => ref.getState),
    replaceState: (change: (state: unknown) => unknown) => ask("replaceState", (ref) => ref.replaceState(change)),
    suspend: ask("suspend", (ref) => ref.suspend),
    resume: ask("resume", (ref) => ref.resume),
    incarnation: ask("incarnation", (ref) => ref.incarnation)
  }
}
