/** What holds in every interleaving. A failure names its seed, and `SeededScheduler.run(seed, …)` has it again. */
import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  Backoff,
  type CallError,
  ChildSpec,
  type DeadLetter,
  DynamicSupervisor,
  ExitReason,
  Registry,
  SupervisionTree,
  Supervisor,
  SupervisorError,
  TaskSupervisor,
  Watch
} from "@tinkex/supervision"
import { EventLog, FaultyChild, SeededScheduler } from "@tinkex/supervision/testing"
import { Effect, Exit, Fiber, Option, Random, Scheduler, Stream } from "effect"
import { TestClock } from "effect/testing"

const seeds = 200

const { settle } = SeededScheduler

/** Runs a test of one interleaving in many. */
const inAll = <A, E, R>(test: Effect.Effect<A, E, R>) => SeededScheduler.explore(test, { seeds })

const drawn = (below: number) => Random.nextIntBetween(0, below, { halfOpen: true })

const generous = { intensity: { restarts: 1_000_000 } }

const count = (length: number) => Array.from({ length }, (_, index) => index)

/** Some turns of others, so that there is something to interleave. */
const dawdle = Effect.flatMap(drawn(4), (times) => Effect.repeat(Effect.yieldNow, { times }))

/** Coming and leaving are one: whoever is interrupted in between has not come. */
const reside = (come: () => unknown, leave: Effect.Effect<unknown>) =>
  Effect.acquireRelease(Effect.sync(come), () => leave)

describe("actors", () => {
  interface Desk {
    inside: number
    most: number
    readonly began: Array<string>
  }

  class Worker extends Actor.make("Worker", {
    init: (desk: Desk) => desk,
    call: {
      plain: (self, message: string) => self.state.began.push(message),
      *slow(self, message: string) {
        self.state.began.push(message)
        yield* within(self.state, dawdle)
      },
      *sleep(self, message: string) {
        self.state.began.push(message)
        yield* within(self.state, Effect.sleep("1 millis"))
      }
    },
    cast: {
      tell: (self, message: string) => void self.state.began.push(message),
      *tellSlow(self, message: string) {
        self.state.began.push(message)
        yield* within(self.state, dawdle)
      },
      *fail(self, message: string) {
        self.state.began.push(message)
        yield* within(self.state, Effect.andThen(dawdle, Effect.die("failed on purpose")))
      }
    }
  }) {}

  /** Counts those who are inside at the same time; the way out takes its time, too. */
  const within = <A, E>(desk: Desk, body: Effect.Effect<A, E>) =>
    Effect.acquireUseRelease(
      Effect.sync(() => (desk.most = Math.max(desk.most, ++desk.inside))),
      () => Effect.andThen(dawdle, body),
      () =>
        Effect.andThen(
          dawdle,
          Effect.sync(() => desk.inside--)
        )
    )

  it.effect(
    "A1: at most one handler at a time, and the messages of each sender in their order, over crashes and kills",
    () =>
      Effect.gen(function* () {
        const crossings = yield* inAll(
          Effect.gen(function* () {
            const desk: Desk = { inside: 0, most: 0, began: [] }
            const spec = ChildSpec.actor("worker", Worker, desk)
            const tree = yield* Supervisor.start({ ...generous, children: [spec] })
            const { worker } = tree.refs
            const operations = [
              worker.cast.tell,
              worker.cast.tellSlow,
              worker.cast.fail,
              worker.call.plain,
              worker.call.slow,
              worker.call.sleep
            ]
            const sender = Effect.fnUntraced(function* (name: string) {
              for (const n of count(8)) {
                const send = operations[yield* drawn(operations.length)] ?? worker.cast.tell
                yield* Effect.exit(send(`${name}${n}`))
                yield* dawdle
              }
            })
            const killer = Effect.repeat(Effect.andThen(dawdle, worker.kill), { times: 2 })
            const fibers = yield* Effect.forEach(["a", "b", "c"], (name) => Effect.forkChild(sender(name)))
            yield* Effect.forkChild(killer)
            yield* TestClock.adjust("1 minute")
            for (const fiber of fibers) assert.isDefined(fiber.pollUnsafe(), "every sender came to its end")
            assert.isAtMost(desk.most, 1)
            assert.strictEqual(desk.inside, 0)
            for (const name of ["a", "b", "c"]) {
              const own = desk.began.filter((message) => message.startsWith(name))
              assert.deepStrictEqual(own, Array.from(new Set(own)).toSorted(), `the order of ${name}`)
            }
            return desk.began.map((message) => message.slice(0, 1)).join("")
          })
        )
        assert.isAtLeast(new Set(crossings).size, seeds / 2, "the seeds differ")
      })
  )

  it.effect("A1: what is kept across a crash is handled before what came later", () =>
    inAll(
      Effect.gen(function* () {
        const began: Array<string> = []
        class Keeper extends Actor.make("Keeper", {
          init: (_arg: void) => Effect.as(dawdle, { began }),
          cast: {
            *tell(self, message: string) {
              self.state.began.push(message)
              yield* dawdle
            }
          },
          mailbox: { acrossRestart: "keep", quarantineAfter: 100 }
        }) {}
        const tree = yield* Supervisor.start({ ...generous, children: [ChildSpec.actor("it", Keeper, undefined)] })
        const sender = (name: string) =>
          Effect.forEach(count(6), (n) => Effect.andThen(dawdle, tree.refs.it.cast.tell(`${name}${n}`)))
        yield* Effect.forEach(["a", "b"], (name) => Effect.forkChild(sender(name)))
        yield* Effect.forkChild(Effect.repeat(Effect.andThen(dawdle, tree.refs.it.kill), { times: 3 }))
        yield* settle
        for (const name of ["a", "b"]) {
          const own = began.filter((message) => message.startsWith(name))
          assert.deepStrictEqual(own, own.toSorted(), `the order of ${name}`)
          assert.strictEqual(new Set(own).size, 6, `nothing of ${name} is lost`)
        }
      })
    )
  )
})

describe("calls", () => {
  interface Asked {
    readonly id: number
    readonly from: Actor.From<number, never>
  }

  class Office extends Actor.make("Office", {
    init: (open: Array<Asked>) => ({ open }),
    call: {
      ask: (self, id: number) => Actor.later<number>((from) => self.state.open.push({ id, from })),
      *sleep(_self, [id, millis]: readonly [id: number, millis: number]) {
        yield* Effect.sleep(millis)
        return id
      },
      now: (_self, id: number) => id
    },
    cast: {
      crash: () => {
        throw new Error("on purpose")
      }
    }
  }) {}

  type Result = number | CallError.CallErrorReason["_tag"]

  it.effect(
    "R1, R2: every call settles exactly once and in time, with its own answer; no answer counts after that",
    () =>
      Effect.gen(function* () {
        const results = yield* inAll(
          Effect.gen(function* () {
            const open: Array<Asked> = []
            const settled = new Map<number, Array<Result>>()
            const accepted = new Map<number, number>()
            const spec = ChildSpec.actor("office", Office, open)
            const tree = yield* Supervisor.start({ ...generous, children: [spec] })
            const log = yield* EventLog.make(tree)
            const { office } = tree.refs
            const caller = Effect.fnUntraced(function* (id: number) {
              yield* Effect.sleep(yield* drawn(5))
              const limit = 1 + (yield* drawn(5))
              const { call } = office.within(limit)
              const how = yield* drawn(3)
              const ask = how === 0 ? call.ask(id) : how === 1 ? call.sleep([id, 1 + (yield* drawn(5))]) : call.now(id)
              const began = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
              const result: Result = yield* Effect.match(ask, {
                onSuccess: (value): Result => value,
                onFailure: (error): Result => error.reason._tag
              })
              settled.set(id, [...(settled.get(id) ?? []), result])
              const took = (yield* Effect.clockWith((clock) => clock.currentTimeMillis)) - began
              assert.isAtMost(took, limit, `call ${id}`)
            })
            /** Answers whom it likes, some of them twice. */
            const clerk = Effect.gen(function* () {
              for (const _ of count(8)) {
                yield* Effect.sleep(1)
                const asked = open[yield* drawn(Math.max(1, open.length))]
                if (asked === undefined) continue
                if (asked.from.succeed(asked.id)) accepted.set(asked.id, (accepted.get(asked.id) ?? 0) + 1)
                if (asked.from.succeed(-1)) assert.fail(`call ${asked.id} took a second answer`)
              }
            })
            const trouble = Effect.gen(function* () {
              yield* Effect.sleep(yield* drawn(6))
              yield* (yield* drawn(2)) === 0 ? office.cast.crash() : office.kill
            })
            const ids = count(12)
            const callers = yield* Effect.forEach(ids, (id) => Effect.forkChild(caller(id)))
            yield* Effect.forkChild(clerk)
            yield* Effect.forkChild(trouble)
            for (const _ of count(20)) yield* TestClock.adjust(1)
            for (const fiber of callers) assert.isTrue(Exit.isSuccess(yield* Fiber.await(fiber)))
            for (const id of ids) {
              const [result, ...others] = settled.get(id) ?? []
              assert.deepStrictEqual(others, [], `call ${id}`)
              if (typeof result === "number") assert.strictEqual(result, id)
              else assert.include(["CallTimeout", "TargetExit", "NoProcess"], result)
              const wasAccepted = accepted.get(id) ?? 0
              assert.isAtMost(wasAccepted, 1)
              if (wasAccepted === 1) assert.strictEqual(result, id, "an answer that was accepted arrived")
            }
            // a late answer never follows an accepted one: each is of a call that has timed out
            const timeouts = Array.from(settled.values()).filter(([result]) => result === "CallTimeout").length
            const late = log
              .filter("LateReply")
              .events.filter((event) => "operation" in event && event.operation === "sleep")
            assert.isAtMost(late.length, timeouts)
            return Array.from(settled.values(), String).toSorted().join()
          })
        )
        const all = results.join()
        for (const outcome of ["CallTimeout", "TargetExit"]) assert.include(all, outcome, "the test reaches it")
      })
  )

  it.effect("R3: an interrupted caller leaves nothing behind: its request is handled completely or not at all", () =>
    inAll(
      Effect.gen(function* () {
        const handled: Array<number> = []
        class Slow extends Actor.make("Slow", {
          init: (_arg: void) => 0,
          call: {
            *work(_self, id: number) {
              yield* dawdle
              handled.push(id)
              return id
            }
          }
        }) {}
        const tree = yield* Supervisor.start({ children: [ChildSpec.actor("slow", Slow, undefined)] })
        const callers = yield* Effect.forEach(count(6), (id) =>
          Effect.forkChild(Effect.andThen(dawdle, tree.refs.slow.call.work(id)))
        )
        yield* dawdle
        for (const fiber of callers.slice(0, 3)) yield* Effect.forkChild(Effect.andThen(dawdle, Fiber.interrupt(fiber)))
        yield* settle
        assert.strictEqual(new Set(handled).size, handled.length, "nothing was handled twice")
        for (const [id, fiber] of callers.entries()) {
          const exit = fiber.pollUnsafe()
          assert.isDefined(exit)
          if (exit !== undefined && Exit.isSuccess(exit)) assert.include(handled, id)
          else assert.isBelow(id, 3, "only those who were interrupted have no answer")
        }
        assert.strictEqual(yield* tree.refs.slow.call.work(99), 99, "the actor goes on")
      })
    )
  )

  it.effect("R2: every deadline fires, also of a call that begins when the last one has just expired", () =>
    inAll(
      Effect.gen(function* () {
        const spec = ChildSpec.actor("office", Office, [])
        const tree = yield* Supervisor.start({ children: [spec] })
        const unanswered = Effect.flip(tree.refs.office.within(2).call.ask(0))
        const caller = Effect.repeat(Effect.andThen(dawdle, unanswered), { times: 7 })
        const callers = yield* Effect.forEach(count(2), () => Effect.forkChild(caller))
        for (const _ of count(16)) yield* TestClock.adjust(1)
        for (const fiber of callers) assert.isDefined(fiber.pollUnsafe(), "all calls have timed out")
      })
    )
  )
})

describe("messages", () => {
  for (const overflow of ["suspend", "reject", "dropNewest", "dropOldest"] as const) {
    for (const acrossRestart of ["drop", "keep"] as const) {
      it.effect(
        `R5: every cast was handled or dropped, once, and each drop has a dead letter (${overflow}, ${acrossRestart})`,
        () =>
          inAll(
            Effect.gen(function* () {
              const began: Array<number> = []
              class Sink extends Actor.make("Sink", {
                init: (_arg: void) => Effect.as(dawdle, 0),
                cast: {
                  *tell(_self, id: number) {
                    began.push(id)
                    yield* dawdle
                  }
                },
                mailbox: { capacity: 3, overflow, acrossRestart, quarantineAfter: 100 }
              }) {}
              const letters: Array<DeadLetter.DeadLetter> = []
              const [log, sent] = yield* Effect.scoped(
                Effect.gen(function* () {
                  const tree = yield* Supervisor.start({
                    ...generous,
                    children: [ChildSpec.actor("sink", Sink, undefined)]
                  })
                  const log = yield* EventLog.make(tree)
                  yield* tree.deadLetters.pipe(
                    Stream.runForEach((letter) => Effect.sync(() => letters.push(letter))),
                    Effect.forkDetach({ startImmediately: true }),
                    Effect.provideService(Scheduler.PreventSchedulerYield, true)
                  )
                  let sent = 0
                  const send = Effect.suspend(() => tree.refs.sink.cast.tell(sent++))
                  const senders = yield* Effect.forEach(count(3), () =>
                    Effect.forkChild(Effect.repeat(Effect.andThen(dawdle, send), { times: 6 }))
                  )
                  yield* Effect.forkChild(Effect.repeat(Effect.andThen(dawdle, tree.refs.sink.kill), { times: 2 }))
                  if ((yield* drawn(2)) === 0) {
                    yield* dawdle
                    yield* tree.terminateChild("sink")
                  }
                  for (const fiber of senders) yield* Fiber.join(fiber)
                  return [log, sent] as const
                })
              )
              yield* settle
              const dropped = letters.map((letter) => letter.payload)
              assert.strictEqual(log.count("MessageDropped"), dropped.length, "each drop has a dead letter")
              assert.strictEqual(new Set(dropped).size, dropped.length, "nothing is dropped twice")
              // what is kept may be handled twice, and dropped when it never comes to an end
              if (acrossRestart === "drop") assert.sameMembers([...began, ...dropped], count(sent))
              else assert.sameMembers(Array.from(new Set([...began, ...dropped])), count(sent))
            })
          )
      )
    }
  }
})

describe("trees", () => {
  interface Life {
    readonly live: Map<string, number>
    broken: number
  }

  /** Says when it lives. */
  class Citizen extends Actor.make("Citizen", {
    *init({ life, name }: { readonly life: Life; readonly name: string }) {
      yield* dawdle
      if (life.broken > 0) {
        life.broken--
        return yield* Effect.fail("on purpose")
      }
      yield* reside(
        () => life.live.set(name, (life.live.get(name) ?? 0) + 1),
        Effect.andThen(
          dawdle,
          Effect.sync(() => life.live.set(name, (life.live.get(name) ?? 0) - 1))
        )
      )
      return { life }
    },
    cast: {
      crash: () => {
        throw new Error("on purpose")
      },
      breakNext: (self) => {
        self.state.life.broken++
        throw new Error("on purpose")
      },
      stop: (self) => self.stop()
    }
  }) {}

  const living = (life: Life) =>
    Array.from(life.live)
      .filter(([, times]) => times !== 0)
      .map(([name, times]) => `${name} ${times}`)
      .toSorted()

  it.effect("S5: whoever lives is in the tree, whoever is in the tree lives, and nobody outlives it", () =>
    inAll(
      Effect.gen(function* () {
        const life: Life = { live: new Map(), broken: 0 }
        const citizen = <const Id extends string>(id: Id, options?: ChildSpec.ChildOptions) =>
          ChildSpec.actor(id, Citizen, { life, name: id }, options)
        const log = yield* Effect.scoped(
          Effect.gen(function* () {
            const tree = yield* Supervisor.start({
              ...generous,
              name: "root",
              children: [
                citizen("a"),
                ChildSpec.supervisor("group", {
                  ...generous,
                  strategy: "one_for_all",
                  children: [citizen("g1"), citizen("g2", { restart: "transient" }), citizen("g3")]
                }),
                ChildSpec.supervisor("line", {
                  ...generous,
                  strategy: "rest_for_one",
                  children: [citizen("l1"), citizen("l2", { restart: "temporary" })]
                }),
                DynamicSupervisor.childSpec("many", generous)
              ]
            })
            const log = yield* EventLog.make(tree)
            const { a, group, line, many } = tree.refs
            const actors = [a, group.refs.g1, group.refs.g2, group.refs.g3, line.refs.l1, line.refs.l2]
            let added = 0
            const once = Effect.gen(function* () {
              yield* dawdle
              const actor = actors[yield* drawn(actors.length)] ?? a
              switch (yield* drawn(10)) {
                case 0:
                case 1:
                  return yield* actor.cast.crash()
                case 2:
                  return yield* actor.cast.breakNext()
                case 3:
                  return yield* actor.cast.stop()
                case 4:
                  return yield* actor.kill
                case 5:
                  return yield* Effect.ignore(group.terminateChild("g2"))
                case 6:
                  return yield* Effect.ignore(group.restartChild("g2"))
                case 7:
                  return yield* line.kill
                case 8: {
                  const name = `x${added++}`
                  const child = yield* Effect.option(many.startChild(citizen(name, { restart: "transient" })))
                  if (Option.isSome(child) && (yield* drawn(2)) === 0)
                    yield* Effect.ignore(many.terminateChild(child.value))
                  return
                }
                default:
                  return yield* Effect.ignore(tree.startChild(citizen("b", { restart: "temporary" })))
              }
            })
            for (const _ of count(3)) {
              yield* Effect.forEach(count(4), () => Effect.forkChild(once))
              yield* settle
              const nodes = SupervisionTree.flatten(yield* tree.snapshot)
              for (const { path, status } of nodes) assert.include(["running", "stopped"], status, path)
              const running = nodes.filter(({ kind, status }) => kind === "actor" && status === "running")
              assert.deepStrictEqual(living(life), running.map(({ id }) => `${id} 1`).toSorted())
            }
            // the end may come at any moment
            yield* Effect.forEach(count(4), () => Effect.forkChild(once))
            yield* dawdle
            return log
          })
        )
        assert.deepStrictEqual(living(life), [])
        yield* log.balanced
        yield* log.expectNone("Zombie")
      })
    )
  )

  it.effect("S5: an exploration balances whatever its children do", () =>
    inAll(
      Effect.gen(function* () {
        const options = { shutdown: "2 seconds", startLimit: "1 second" } as const
        const children = [
          FaultyChild.make("hangs", { soundInits: 1, hangInits: 1 }, options),
          FaultyChild.make("sticks", { refuseToStop: true }, options),
          FaultyChild.make("dies", { dieInFinalizer: true }, options),
          FaultyChild.make("tires", { crashAfter: "1 second", incarnations: 2 }, options),
          FaultyChild.make("fails", { soundInits: 1, failInits: 2 }, options)
        ] as const
        const strategy = (["one_for_one", "one_for_all", "rest_for_one"] as const)[yield* drawn(3)]
        const ending = yield* Effect.forkChild(
          Effect.scoped(
            Effect.gen(function* () {
              const tree = yield* Supervisor.start({
                ...generous,
                strategy,
                children: children.map(({ spec }) => spec)
              })
              const log = yield* EventLog.make(tree)
              const refs = Object.values(tree.refs)
              yield* Effect.forEach(count(3), () =>
                Effect.forkChild(
                  Effect.gen(function* () {
                    yield* dawdle
                    const ref = refs[yield* drawn(refs.length)]
                    if (ref !== undefined) yield* (yield* drawn(2)) === 0 ? ref.kill : ref.cast.crash()
                  })
                )
              )
              yield* Effect.sleep(yield* drawn(4000))
              return log
            })
          )
        )
        yield* TestClock.adjust("1 minute")
        const log = yield* Fiber.join(ending)
        yield* log.balanced
        for (const { history, release, spec } of children) {
          yield* release
          yield* settle
          const up = history.filter(({ what }) => what === "up").length
          // an init that was done may still have been given up
          assert.isAtMost(log.count({ _tag: "ChildStarted", child: spec.id }), up, spec.id)
        }
        for (const child of children) {
          const ups = child.history.filter(({ what }) => what === "up").length
          assert.strictEqual(child.history.filter(({ what }) => what === "finalized").length, ups, child.spec.id)
        }
      })
    )
  )

  for (const strategy of ["one_for_all", "rest_for_one"] as const) {
    it.effect(
      `S2: ${strategy}: nobody starts while a later one lives, nobody is stopped before a later one, and all come back`,
      () =>
        inAll(
          Effect.gen(function* () {
            const names = ["a", "b", "c", "d"] as const
            const live = new Set<string>()
            const crashed = new Set<string>()
            const laterThan = (name: string) => names.filter((other) => other > name && live.has(other))
            class Member extends Actor.make("Member", {
              *init(name: string) {
                yield* dawdle
                yield* reside(
                  () => {
                    assert.deepStrictEqual(laterThan(name), [], `${name} starts`)
                    assert.isFalse(live.has(name))
                    live.add(name)
                  },
                  Effect.gen(function* () {
                    yield* dawdle
                    if (!crashed.delete(name)) assert.deepStrictEqual(laterThan(name), [], `${name} was stopped first`)
                    live.delete(name)
                  })
                )
                return name
              },
              cast: {
                crash: (self) => {
                  crashed.add(self.state)
                  throw new Error("on purpose")
                }
              }
            }) {}
            const tree = yield* Supervisor.start({
              ...generous,
              strategy,
              children: names.map((name) => ChildSpec.actor(name, Member, name))
            })
            const log = yield* EventLog.make(tree)
            const crashes = Effect.gen(function* () {
              yield* dawdle
              const name = names[yield* drawn(names.length)] ?? "a"
              yield* tree.refs[name].cast.crash()
            })
            yield* Effect.forEach(count(4), () => Effect.forkChild(crashes))
            yield* settle
            assert.deepStrictEqual(Array.from(live).toSorted(), [...names])
            const statuses = (yield* tree.whichChildren).map(({ status }) => status)
            assert.deepStrictEqual(
              statuses,
              names.map(() => "running")
            )
            // a finalizer of the test that failed would be a shutdown error
            yield* log.expectNone("ShutdownError")
            yield* log.expectNone("StartFailed")
            for (const event of log.filter("ChildExited").events) {
              assert.isTrue(
                event._tag === "ChildExited" && String(ExitReason.format(event.exit)).includes("on purpose")
              )
            }
          })
        )
    )
  }

  it.effect("S2: one_for_one: nobody but the crashed is restarted", () =>
    inAll(
      Effect.gen(function* () {
        const children = count(4).map((n) => FaultyChild.make(`c${n}`))
        const tree = yield* Supervisor.start({ ...generous, children: children.map(({ spec }) => spec) })
        const refs = Object.values(tree.refs)
        const crashes = Effect.gen(function* () {
          yield* dawdle
          const ref = refs[yield* drawn(refs.length)]
          if (ref !== undefined) yield* ref.cast.crash()
        })
        yield* Effect.forEach(count(5), () => Effect.forkChild(crashes))
        yield* settle
        for (const { history, spec } of children) {
          const [ups, own] = ["up", "crashed"].map((wanted) => history.filter(({ what }) => what === wanted).length)
          assert.strictEqual(ups, (own ?? 0) + 1, spec.id)
        }
      })
    )
  )

  it.effect("S3: a tree under fire ends with all children up, or gives up with all down and says why", () =>
    Effect.gen(function* () {
      const ends = yield* inAll(
        Effect.gen(function* () {
          const strategy = (["one_for_one", "one_for_all", "rest_for_one"] as const)[yield* drawn(3)]
          const children = count(3).map((n) => FaultyChild.make(`c${n}`, { soundInits: 1, failInits: n === 1 ? 1 : 0 }))
          const tree = yield* Supervisor.start({
            strategy,
            intensity: { restarts: 4 },
            children: children.map(({ spec }) => spec)
          })
          const log = yield* EventLog.make(tree)
          const refs = Object.values(tree.refs)
          const crashes = Effect.gen(function* () {
            yield* dawdle
            const ref = refs[yield* drawn(refs.length)]
            if (ref !== undefined) yield* ref.cast.crash()
          })
          yield* Effect.forEach(count(5), () => Effect.forkChild(crashes))
          yield* settle
          const ups = children.map(({ history }) => history.filter(({ what }) => what === "up").length)
          const downs = children.map(({ history }) => history.filter(({ what }) => what === "finalized").length)
          if (!log.ended) {
            assert.deepStrictEqual(
              ups,
              downs.map((times) => times + 1)
            )
            yield* log.expectNone("GaveUp")
            return "up"
          }
          assert.deepStrictEqual(ups, downs)
          yield* log.balanced
          yield* log.expectInOrder(["GaveUp", { _tag: "SupervisorExited", exit: "Crash" }])
          const exit = yield* tree.exit
          const error = exit._tag === "Crash" ? exit.error : undefined
          assert.instanceOf(error, SupervisorError.SupervisorError)
          assert.isTrue(error instanceof SupervisorError.SupervisorError && error.reason._tag === "MaxRestartsExceeded")
          return "gave up"
        })
      )
      assert.sameMembers(Array.from(new Set(ends)), ["up", "gave up"], "the test reaches both")
    })
  )
})

describe("timers", () => {
  it.effect(
    "a timer is handled by the incarnation that set it, once, and never after it was cancelled or replaced",
    () =>
      Effect.gen(function* () {
        const handled = yield* inAll(
          Effect.gen(function* () {
            const valid = new Map<number, number>()
            const fired: Array<number> = []
            let last = 0
            class Timed extends Actor.make("Timed", {
              init: (_arg: void) => Effect.as(dawdle, { token: 0 }),
              cast: {
                set: (self, millis: number) => {
                  const token = ++last
                  self.state.token = token
                  valid.set(token, self.generation)
                  self.timers.start("one", millis, (later) => {
                    assert.strictEqual(valid.get(token), later.generation)
                    assert.strictEqual(later.state.token, token)
                    fired.push(token)
                  })
                },
                cancel: (self) => {
                  self.timers.cancel("one")
                  self.state.token = 0
                },
                // a timer that goes off meanwhile waits in the mailbox
                *sleep(_self, millis: number) {
                  yield* Effect.sleep(millis)
                }
              }
            }) {}
            const tree = yield* Supervisor.start({ ...generous, children: [ChildSpec.actor("it", Timed, undefined)] })
            const log = yield* EventLog.make(tree)
            const { cast, kill } = tree.refs.it
            const once = Effect.gen(function* () {
              yield* Effect.sleep(yield* drawn(8))
              yield* dawdle
              const how = yield* drawn(7)
              if (how < 3) return yield* cast.set(1 + (yield* drawn(3)))
              if (how < 5) return yield* cast.cancel()
              return yield* how === 5 ? cast.sleep(2) : kill
            })
            yield* Effect.forEach(count(14), () => Effect.forkChild(once))
            for (const _ of count(20)) yield* TestClock.adjust(1)
            assert.strictEqual(new Set(fired).size, fired.length)
            // an assertion in a timer is a crash
            yield* log.expectNone({ _tag: "ChildExited", exit: "Crash" })
            return fired.length
          })
        )
        assert.isAbove(Math.max(...handled), 1)
      })
  )
})

describe("tasks", () => {
  it.effect("T1, T2, T3: a task gives its own result, its crash its caller's end, and nothing outlives the scope", () =>
    Effect.gen(function* () {
      const outcomes = yield* inAll(
        Effect.gen(function* () {
          let live = 0
          const tasks = yield* TaskSupervisor.start()
          const work = (id: number, crashes: boolean) =>
            Effect.acquireUseRelease(
              Effect.sync(() => live++),
              () => Effect.andThen(dawdle, crashes ? Effect.die(`task ${id}`) : Effect.succeed(id)),
              () =>
                Effect.andThen(
                  dawdle,
                  Effect.sync(() => live--)
                )
            )
          const caller = (id: number) =>
            Effect.gen(function* () {
              const crashes = (yield* drawn(3)) === 0
              const awaits = (yield* drawn(2)) === 0
              const exit = yield* Effect.exit(
                Effect.scoped(
                  Effect.gen(function* () {
                    const task = yield* tasks.async(work(id, crashes))
                    yield* dawdle
                    if (!awaits) return yield* Effect.repeat(Effect.yieldNow, { times: 100 })
                    assert.strictEqual(yield* task.await, id)
                    assert.strictEqual(yield* task.await, id)
                  })
                )
              )
              if (!crashes) assert.isTrue(Exit.isSuccess(exit), `caller ${id}`)
              return Exit.isSuccess(exit) ? "went on" : awaits ? "failed" : "interrupted"
            })
          const callers = yield* Effect.forEach(count(5), (id) => Effect.forkChild(caller(id)))
          const exits = yield* Effect.forEach(callers, Fiber.await)
          yield* settle
          assert.strictEqual(live, 0)
          assert.strictEqual((yield* tasks.countChildren).specs, 0)
          return exits.map((exit) => (Exit.isSuccess(exit) ? exit.value : "interrupted")).join()
        })
      )
      for (const outcome of ["went on", "failed", "interrupted"]) assert.include(outcomes.join(), outcome)
    })
  )
})

describe("dynamic supervisors", () => {
  it.effect("D1: there are never more children than allowed, and there is room again as soon as one has gone", () =>
    inAll(
      Effect.gen(function* () {
        const many = yield* DynamicSupervisor.start({ ...generous, maxChildren: 2 })
        const child = FaultyChild.make("it", {}, { restart: "transient" })
        const guest = Effect.gen(function* () {
          yield* dawdle
          const ref = yield* Effect.result(many.startChild(child.spec))
          assert.isAtMost((yield* many.countChildren).specs, 2)
          if (ref._tag === "Failure") {
            assert.strictEqual(ref.failure.reason._tag, "MaxChildren")
            return
          }
          if ((yield* drawn(2)) === 0) yield* ref.success.cast.crash()
          yield* dawdle
          yield* many.terminateChild(ref.success)
        })
        const guests = yield* Effect.forEach(count(5), () => Effect.forkChild(guest))
        yield* settle
        for (const fiber of guests) assert.isTrue(Exit.isSuccess(yield* Fiber.await(fiber)))
        assert.strictEqual((yield* many.countChildren).specs, 0)
        yield* many.startChild(child.spec)
        yield* many.startChild(child.spec)
      })
    )
  )
})

describe("links", () => {
  it.effect("two that are linked end together, whoever ends first", () =>
    Effect.gen(function* () {
      const ends = yield* inAll(
        Effect.gen(function* () {
          const live = new Set<string>()
          let linked = false
          class Peer extends Actor.make("Peer", {
            *init(name: string) {
              yield* reside(
                () => live.add(name),
                Effect.sync(() => live.delete(name))
              )
              return name
            },
            cast: {
              link: (self, other: Watch.Watchable) => {
                self.link(other)
                linked = true
              },
              crash: () => {
                throw new Error("on purpose")
              }
            }
          }) {}
          const options = { restart: "temporary" } as const
          const tree = yield* Supervisor.start({
            children: [ChildSpec.actor("a", Peer, "a", options), ChildSpec.actor("b", Peer, "b", options)]
          })
          const { a, b } = tree.refs
          const first = (yield* drawn(2)) === 0 ? a : b
          yield* Effect.forkChild(Effect.andThen(dawdle, a.cast.link(b)))
          yield* Effect.forkChild(Effect.andThen(dawdle, (yield* drawn(2)) === 0 ? first.kill : first.cast.crash()))
          yield* settle
          assert.deepStrictEqual(Array.from(live), linked ? [] : first === a ? ["b"] : ["a"])
          return linked
        })
      )
      assert.sameMembers(Array.from(new Set(ends)), [true, false], "the test reaches both")
    })
  )
})

describe("watchers and names", () => {
  it.effect(
    "W1, W2: each watcher is told exactly once, of an incarnation that was up when it began, after its end",
    () =>
      inAll(
        Effect.gen(function* () {
          const told: Array<{ readonly name: string; readonly since: number; readonly down: Actor.Down }> = []
          const child = FaultyChild.make("it")
          const tree = yield* Supervisor.start({ ...generous, children: [child.spec] })
          const log = yield* EventLog.make(tree)
          class Watcher extends Actor.make("Watcher", {
            init: (name: string) => name,
            cast: {
              look: (self, target: Watch.Watchable) => {
                const since = log.count("ChildExited it")
                self.watch(target, ({ state }, down) => void told.push({ name: state, since, down }))
              }
            }
          }) {}
          const names = ["a", "b", "c", "d"]
          const watchers = yield* Supervisor.start({
            name: "watchers",
            children: names.map((name) => ChildSpec.actor(name, Watcher, name))
          })
          for (const watcher of Object.values(watchers.refs)) {
            yield* Effect.forkChild(Effect.andThen(dawdle, watcher.cast.look(tree.refs.it)))
          }
          yield* Effect.forkChild(Effect.repeat(Effect.andThen(dawdle, tree.refs.it.kill), { times: 3 }))
          yield* settle
          yield* tree.terminateChild("it")
          yield* settle
          assert.deepStrictEqual(told.map(({ name }) => name).toSorted(), names)
          for (const { down, name, since } of told) {
            assert.isAtLeast(down.generation, since, name)
            if (down.exit === undefined) continue
            const ends = log.filter("ChildExited it", "ChildStopped it")
            assert.strictEqual(ends.count({ generation: down.generation }), 1, name)
          }
        })
      )
  )

  it.effect("N1, N3: a unique name goes from one owner to the next, and never belongs to two", () =>
    inAll(
      Effect.gen(function* () {
        class Owner extends Actor.make("Owner", {
          *init(_arg: void) {
            yield* reside(() => {}, dawdle)
            return yield* Effect.as(dawdle, 0)
          },
          cast: {
            crash: () => {
              throw new Error("on purpose")
            }
          }
        }) {}
        const registry = yield* Registry.make(Owner)
        const story: Array<string> = []
        yield* registry.events.pipe(
          Stream.runForEach((event) => Effect.sync(() => story.push(event._tag))),
          Effect.forkChild({ startImmediately: true }),
          Effect.provideService(Scheduler.PreventSchedulerYield, true)
        )
        // an owner whose name was taken while it was down would try again for ever
        const many = yield* DynamicSupervisor.start({ ...generous, backoff: Backoff.fixed("1 second") })
        const spec = ChildSpec.actor("owner", Owner, undefined, { names: [registry.name("one")] })
        let started = 0
        const contender = Effect.gen(function* () {
          yield* dawdle
          const ref = yield* Effect.option(many.startChild(spec))
          if (Option.isNone(ref)) return
          started++
          yield* ref.value.cast.crash()
          yield* dawdle
          if ((yield* drawn(2)) === 0) yield* Effect.ignore(many.terminateChild(ref.value))
        })
        yield* Effect.forEach(count(4), () => Effect.forkChild(contender))
        yield* settle
        assert.isAtLeast(started, 1)
        const { active } = yield* many.countChildren
        assert.isAtMost(active, 1)
        assert.strictEqual(yield* registry.count, active)
        const takes = Math.ceil(story.length / 2)
        const turns = count(takes).flatMap(() => ["Registered", "Unregistered"])
        assert.deepStrictEqual(story, turns.slice(0, story.length), "it is given back before it is taken again")
        assert.strictEqual(story.length % 2, active)
      })
    )
  )
})
