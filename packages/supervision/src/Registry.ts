/**
 * Names for actors.
 *
 * A registry maps keys to the actors that have them. With unique keys it is a phone book: one owner per key, and a ref
 * by name that finds whoever has the name when a message is sent. With duplicate keys it is a list of subscribers.
 * `// =>` shows what an expression returns.
 *
 * ```ts
 * import { Actor, ChildSpec, DynamicSupervisor, Registry } from "@tinkex/supervision"
 * import { Effect } from "effect"
 *
 * class Account extends Actor.make("Account", {
 *   init: (opening: number) => ({ balance: opening }),
 *   call: {
 *     balance: (self) => self.state.balance,
 *     deposit: (self, amount: number) => (self.state.balance += amount),
 *     corrupt: (): number => {
 *       throw new Error("bit flip")
 *     }
 *   }
 * }) {}
 *
 * const bank = Effect.gen(function* () {
 *   const owners = yield* Registry.make(Account)
 *   const accounts = yield* DynamicSupervisor.start({ name: "accounts" })
 *   const open = (owner: string, amount: number) =>
 *     accounts.startChild(ChildSpec.actor("account", Account, amount, { names: [owners.name(owner)] }))
 *
 *   const alice = yield* open("alice", 100)
 *   yield* owners.ref("alice").call.deposit(30) // => 130
 *   const taken = yield* Effect.flip(open("alice", 0))
 *   taken.reason._tag // => "StartFailed"
 *
 *   yield* Effect.flip(owners.ref("alice").call.corrupt())
 *   yield* alice.call.balance() // => 100
 *   yield* owners.ref("alice").call.balance() // => 100
 *   const nobody = yield* Effect.flip(owners.ref("carol").call.balance())
 *   nobody.reason._tag // => "NoProcess"
 * })
 * ```
 *
 * A name belongs to one incarnation. It is taken before the init runs when the child spec lists it (`names`), or by
 * `register` from an init or handler that is an effect; it is free again at once when the incarnation ends, however it
 * does.
 *
 * With duplicate keys several actors have one key, and a name carries a value:
 *
 * ```ts
 * class Screen extends Actor.make("Screen", {
 *   init: () => ({ rates: [] as Array<number> }),
 *   call: { rates: (self) => self.state.rates.join(" ") },
 *   cast: { show: (self, rate: number) => void self.state.rates.push(rate) }
 * }) {}
 *
 * const rates = Effect.gen(function* () {
 *   const screens = yield* Registry.make<typeof Screen, string, number>(Screen, { keys: "duplicate" })
 *   const supervisor = yield* DynamicSupervisor.start()
 *   const screen = (decimals: number) =>
 *     supervisor.startChild(ChildSpec.actor("screen", Screen, undefined, { names: [screens.name("EUR", decimals)] }))
 *   const hall = yield* screen(2)
 *   const office = yield* screen(4)
 *   yield* screens.dispatch("EUR", ({ ref, value }) => ref.cast.show(Number((1.08347).toFixed(value))))
 *   yield* hall.call.rates() // => "1.08"
 *   yield* office.call.rates() // => "1.0835"
 *   yield* screens.count // => 2
 * })
 * ```
 *
 * `make` has one option, `keys`: `unique` (default) or `duplicate`. `register` is refused with `AlreadyRegistered` when
 * a unique key is taken, and with `InvalidRequest` outside an actor of this registry or after its end. A start whose
 * name is taken fails with `StartFailed`, whose exit has `AlreadyRegistered` with the path of the owner; a name of a
 * registry for other actors is refused with `InvalidRequest`.
 *
 * **Guarantees.** No two live incarnations have one unique key (N1). A start that fails gives its names back before it
 * returns (N2). An entry is removed only by the incarnation that made it: a late one never takes a name from its
 * successor (N3). A dead owner is never found (N4).
 *
 * **Not guaranteed.** Names are known in this process only. A ref by name may find nobody while its actor is being
 * restarted, where the actor's own ref would wait; a cast to nobody is lost without an event. Keys are compared as by
 * `Map`, so two equal objects are two keys.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Stream from "effect/Stream"
import type { AnyActor } from "./Actor.ts"
import type { ActorRef, IncarnationRef } from "./ActorRef.ts"
import { ActorChild } from "./internal/actorChild.ts"
import type { Child } from "./internal/child.ts"
import { sameActor } from "./internal/definition.ts"
import { Hub } from "./internal/eventHub.ts"
import type { Registration } from "./internal/names.ts"
import { CurrentPlace, type Place } from "./internal/place.ts"
import { makeNamedRef, makeRef } from "./internal/refs.ts"
import { childOf, generationOf } from "./internal/target.ts"
import { AlreadyRegistered, InvalidRequest, SupervisorError } from "./SupervisorError.ts"

/**
 * One name and its owner.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry<A extends AnyActor, Key, Value> {
  readonly key: Key
  readonly value: Value
  readonly ref: IncarnationRef<A>
}

/**
 * What happened to a name. `owner` is the path of the actor.
 *
 * @category models
 * @since 0.1.0
 */
export interface RegistryEvent<Key> {
  readonly _tag: "Registered" | "Unregistered"
  readonly key: Key
  readonly owner: string
}

/**
 * A registry of actors of one class. Keys are compared as by `Map`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Registry<A extends AnyActor, Key, Value> {
  /** For the `names` of a child spec: the name is taken before init, and a start that finds it taken fails. */
  readonly name: (key: Key, value: Value) => Registration
  /**
   * Takes a name for the actor in whose init or handler this runs. Refused with `AlreadyRegistered` when a unique key is
   * taken, and with `InvalidRequest` outside an actor of this registry, or after its end.
   */
  readonly register: (key: Key, value: Value) => Effect.Effect<void, SupervisorError>
  /** Gives a name of the actor in whose init or handler this runs back. Whether it had it. */
  readonly unregister: (key: Key) => Effect.Effect<boolean>
  /** Changes the value of a name of the actor in whose init or handler this runs. Whether it has it. */
  readonly update: (key: Key, change: (value: Value) => Value) => Effect.Effect<boolean>
  /** The owner of a key; of several, the one that has it longest. */
  readonly lookup: (key: Key) => Effect.Effect<Option.Option<Entry<A, Key, Value>>>
  /** All owners of a key, in the order in which they took it. */
  readonly lookupAll: (key: Key) => Effect.Effect<ReadonlyArray<Entry<A, Key, Value>>>
  /** All entries that fulfil a condition. Default: all. */
  readonly select: (
    condition?: (entry: Entry<A, Key, Value>) => boolean
  ) => Effect.Effect<ReadonlyArray<Entry<A, Key, Value>>>
  /** The keys of an actor. */
  readonly keys: (ref: ActorRef<A> | IncarnationRef<A>) => Effect.Effect<ReadonlyArray<Key>>
  readonly count: Effect.Effect<number>
  /** Does something for every owner of a key, one after the other. */
  readonly dispatch: <B, E, R>(
    key: Key,
    use: (entry: Entry<A, Key, Value>) => Effect.Effect<B, E, R>
  ) => Effect.Effect<void, E, R>
  /** An address that looks its key up with every message. Without an owner calls fail with `NoProcess`, casts do nothing. */
  readonly ref: (key: Key) => ActorRef<A>
  /** Names taken and given back from now on. A reader may fall behind by 8192. */
  readonly events: Stream.Stream<RegistryEvent<Key>>
}

interface Owned<Key, Value> {
  readonly key: Key
  value: Value
  readonly actor: ActorChild
  readonly generation: number
  readonly release: () => void
}

const nextGeneration = (child: Child): number => (child.status === "up" ? child.generation : child.generation + 1)

class Directory<Key, Value> {
  readonly entries = new Map<Key, Array<Owned<Key, Value>>>()
  readonly hub = new Hub<RegistryEvent<Key>>()
  private readonly unique: boolean

  constructor(unique: boolean) {
    this.unique = unique
  }

  find(key: Key): ReadonlyArray<Owned<Key, Value>> {
    return this.entries.get(key) ?? []
  }

  /** The path of the owner when the key is taken, else what gives it back. */
  take(actor: ActorChild, key: Key, value: Value): string | (() => void) {
    const owners = this.entries.get(key)
    const [owner] = owners ?? []
    if (this.unique && owner !== undefined) return owner.actor.path
    const release = () => this.drop(entry)
    const entry: Owned<Key, Value> = { key, value, actor, generation: nextGeneration(actor), release }
    if (owners === undefined) this.entries.set(key, [entry])
    else owners.push(entry)
    this.hub.push({ _tag: "Registered", key, owner: actor.path })
    return release
  }

  /** Takes a name back before its owner ends. */
  giveBack(entry: Owned<Key, Value>): void {
    this.drop(entry)
    const { extras } = entry.actor
    if (extras !== undefined) extras.leases = extras.leases?.filter((lease) => lease !== entry.release)
  }

  private drop(entry: Owned<Key, Value>): void {
    const owners = this.entries.get(entry.key)
    const at = owners?.indexOf(entry) ?? -1
    if (owners === undefined || at < 0) return
    owners.splice(at, 1)
    if (owners.length === 0) this.entries.delete(entry.key)
    this.hub.push({ _tag: "Unregistered", key: entry.key, owner: entry.actor.path })
  }

  owned(place: Place | undefined, key: Key): Owned<Key, Value> | undefined {
    if (place?.live !== true) return undefined
    const generation = nextGeneration(place.child)
    return this.find(key).find((entry) => entry.actor === place.child && entry.generation === generation)
  }
}

/**
 * Makes a registry. It is plain memory: whoever has it uses it, usually as a service.
 *
 * **Example** (One room per name)
 *
 * ```ts
 * import { Actor, ChildSpec, DynamicSupervisor, Registry } from "@tinkex/supervision"
 * import { Effect } from "effect"
 *
 * class Room extends Actor.make("Room", {
 *   init: (topic: string) => ({ topic }),
 *   call: { topic: (self) => self.state.topic }
 * }) {}
 *
 * const program = Effect.gen(function* () {
 *   const rooms = yield* Registry.make(Room)
 *   const supervisor = yield* DynamicSupervisor.start()
 *   yield* supervisor.startChild(ChildSpec.actor("room", Room, "tea", { names: [rooms.name("kitchen")] }))
 *   return yield* rooms.ref("kitchen").call.topic() // "tea"
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A extends AnyActor, Key = string, Value = void>(
  actor: A,
  options: { readonly keys?: "unique" | "duplicate" | undefined } = {}
): Effect.Effect<Registry<A, Key, Value>> =>
  Effect.sync(() => {
    const { definition } = actor
    const directory = new Directory<Key, Value>(options.keys !== "duplicate")
    // a directory only has actors of this class
    const show = ({ key, value, actor, generation }: Owned<Key, Value>): Entry<A, Key, Value> => ({
      key,
      value,
      ref: makeRef(actor, generation) as IncarnationRef<A>
    })
    const here = <B>(use: (place: Place | undefined) => B) =>
      Effect.contextWith((context: Context.Context<never>) =>
        Effect.sync(() => use(Context.get(context, CurrentPlace)))
      )
    return {
      name: (key, value) => ({
        key,
        definition,
        take: (child) => (child instanceof ActorChild ? directory.take(child, key, value) : "nobody but actors")
      }),
      register: (key, value) =>
        Effect.flatten(
          here((place) => {
            const child = place?.child
            if (place?.live !== true || !(child instanceof ActorChild) || !sameActor(child.definition, definition)) {
              const problem = `only a live ${definition.name} can take a name here, from its init or a handler`
              const about = { supervisor: child?.owner.path ?? "registry", field: `the name "${String(key)}"`, problem }
              return Effect.fail(new SupervisorError({ reason: new InvalidRequest(about) }))
            }
            const taken = directory.take(child, key, value)
            if (typeof taken === "string") {
              const about = { supervisor: child.owner.path, child: child.id, key: String(key), owner: taken }
              return Effect.fail(new SupervisorError({ reason: new AlreadyRegistered(about) }))
            }
            const { rare } = child
            ;(rare.leases ??= []).push(taken)
            return Effect.void
          })
        ),
      unregister: (key) =>
        here((place) => {
          const entry = directory.owned(place, key)
          if (entry !== undefined) directory.giveBack(entry)
          return entry !== undefined
        }),
      update: (key, change) =>
        here((place) => {
          const entry = directory.owned(place, key)
          if (entry !== undefined) entry.value = change(entry.value)
          return entry !== undefined
        }),
      lookup: (key) => Effect.sync(() => Option.map(Option.fromUndefinedOr(directory.find(key)[0]), show)),
      lookupAll: (key) => Effect.sync(() => directory.find(key).map(show)),
      select: (condition = () => true) =>
        Effect.sync(() => Array.from(directory.entries.values()).flat().map(show).filter(condition)),
      keys: (ref) =>
        Effect.sync(() => {
          const owner = childOf(ref)
          const exact = generationOf(ref)
          return Array.from(directory.entries.values())
            .flat()
            .filter(({ actor, generation }) => actor === owner && (exact === undefined || exact === generation))
            .map(({ key }) => key)
        }),
      count: Effect.sync(() => Array.from(directory.entries.values()).flat().length),
      dispatch: (key, use) =>
        Effect.suspend(() => Effect.forEach(directory.find(key).map(show), use, { discard: true })),
      ref: (key) => makeNamedRef(String(key), definition, () => directory.find(key)[0]?.actor) as ActorRef<A>, // as show
      events: directory.hub.stream(
        () => true,
        (events) => events
      )
    }
  })
