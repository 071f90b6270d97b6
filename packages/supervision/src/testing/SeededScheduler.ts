/**
 * Runs an effect so that a seed decides who goes first.
 *
 * What a program with several fibers does depends on their order, and an ordinary run shows one order only, the same each
 * time. Under a seed the order is drawn: which fiber continues, after how many operations it is interrupted by another, and
 * which actor of a tree has the next turn. Some seeds are even-handed, others let some fibers wait for a long time; some
 * switch after every other operation, others never before a fiber has to wait.
 *
 * **Guarantees.** The same seed and the same effect give the same interleaving, in every process (I1). Whatever a seed shows
 * can happen: tasks of one fiber keep their order, and only those that could run are drawn (I2). Time stands still: the effect
 * has a `TestClock` of its own, whose `adjust` waits until nothing can run without time, both before it moves and after (I3).
 * `Random` draws from the seed too, so that the jitter of a backoff repeats (I4). An effect that comes to no end is an end:
 * its exit dies with `Stalled` (I5).
 *
 * **Not guaranteed.** What the effect takes from outside repeats only as far as the outside does: files, sockets, real time,
 * `Math.random`, variables that an earlier run changed. So make within the effect what it works on, the supervision tree
 * first of all. What the effect leaves behind when it ends runs on only as far as it needs no time. Wakes of one and the same virtual instant
 * come one after the other, as `TestClock` has it.
 *
 * **Example** (Two senders, in every order)
 *
 * ```ts
 * import { Actor, ChildSpec, Supervisor } from "@tinkex/supervision"
 * import { SeededScheduler } from "@tinkex/supervision/testing"
 * import { Effect } from "effect"
 *
 * class Notes extends Actor.make("Notes", {
 *   init: () => ({ lines: [] as Array<string> }),
 *   call: { all: (self) => self.state.lines.join(" ") },
 *   cast: { add: (self, line: string) => void self.state.lines.push(line) }
 * }) {}
 *
 * const program = Effect.gen(function* () {
 *   const tree = yield* Supervisor.start({ children: [ChildSpec.actor("notes", Notes, undefined)] })
 *   const { notes } = tree.refs
 *   yield* Effect.forEach(["a", "b"], (sender) => Effect.forEach([1, 2], (n) => notes.cast.add(`${sender}${n}`)), {
 *     concurrency: "unbounded"
 *   })
 *   return yield* notes.call.all()
 * })
 *
 * const results = await Effect.runPromise(SeededScheduler.explore(program, { seeds: 100 }))
 * console.log(Array.from(new Set(results)).toSorted().join(", ")) // => a1 a2 b1 b2, a1 b1 a2 b2, a1 b1 b2 a2, b1 a1 a2 b2, b1 a1 b2 a2, b1 b2 a1 a2
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Scheduler from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { CurrentInterleaving, type Interleaving } from "../internal/interleaving.ts"
import { SeedFailed, Stalled, TestingError } from "./TestingError.ts"

/**
 * @category options
 * @since 0.1.0
 */
export interface RunOptions {
  /** Steps after which an effect that has not ended is given up as a livelock. Default 1 000 000. */
  readonly maxSteps?: number | undefined
  /** Real time that an effect may wait for something outside before it is given up as a deadlock. Default 5 seconds. */
  readonly patience?: Duration.Input | undefined
}

/**
 * @category options
 * @since 0.1.0
 */
export interface ExploreOptions extends RunOptions {
  /** How many seeds. Default 50. */
  readonly seeds?: number | undefined
  /** The first seed; the others follow it. Default 0. */
  readonly from?: number | undefined
}

/**
 * One step of a run: a task that was drawn among those that could run.
 *
 * @category models
 * @since 0.1.0
 */
export interface Step {
  /** Which one was drawn, from 0, among how many. */
  readonly drawn: number
  readonly among: number
  /** The fibers that ran in it, numbered from 1 in the order of their first appearance. */
  readonly fibers: ReadonlyArray<number>
  /** The turns of actors and supervisors in it: which one was drawn, among how many. */
  readonly turns: ReadonlyArray<{ readonly drawn: number; readonly among: number }>
  /** What the effect marked in it. */
  readonly marks: ReadonlyArray<string>
}

/**
 * What happened under a seed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recording<out A, out E> {
  readonly seed: number
  readonly exit: Exit.Exit<A, E>
  readonly steps: ReadonlyArray<Step>
}

/** Well spread numbers from a seed: a counter that is mixed. */
const numbers = (seed: number): (() => number) => {
  const mix = (value: number) => {
    const once = Math.imul(value ^ (value >>> 16), 0x85eb_ca6b)
    const twice = Math.imul(once ^ (once >>> 13), 0xc2b2_ae35)
    return (twice ^ (twice >>> 16)) >>> 0
  }
  // seeds that follow each other, and those beyond 32 bits, must not share their numbers
  let counter = mix(mix(seed | 0) + Math.floor(seed / 2 ** 32) + 1)
  return () => {
    counter = (counter + 0x9e37_79b9) | 0
    return mix(counter) / 2 ** 32
  }
}

const below = (random: number, count: number) => Math.min(count - 1, Math.floor(random * count))

interface Task {
  readonly run: () => void
  readonly priority: number
}

/** The tasks of one fiber, in their order. */
class Lane implements Scheduler.SchedulerDispatcher {
  readonly weight: number
  private readonly course: Course
  private readonly tasks: Array<Task> = []

  constructor(course: Course, weight: number) {
    this.course = course
    this.weight = weight
  }

  get first(): Task | undefined {
    return this.tasks[0]
  }

  scheduleTask(run: () => void, priority: number): void {
    let at = this.tasks.length
    while (at > 0 && (this.tasks[at - 1]?.priority ?? priority) > priority) at--
    this.tasks.splice(at, 0, { run, priority })
    if (this.tasks.length === 1) this.course.lanes.push(this)
    this.course.wake()
  }

  take(): Task | undefined {
    const task = this.tasks.shift()
    const { lanes } = this.course
    if (task !== undefined && this.tasks.length === 0) lanes.splice(lanes.indexOf(this), 1)
    return task
  }

  flush(): void {
    for (let task = this.take(); task !== undefined; task = this.take()) task.run()
  }
}

interface Recorded extends Step {
  readonly fibers: Array<number>
  readonly turns: Array<{ readonly drawn: number; readonly among: number }>
  readonly marks: Array<string>
}

const microtask = Promise.resolve()
const stepsPerMacrotask = 64
const stepsToEnd = 10_000

/** Lower numbers go first, so whoever waits with this one goes when nothing else can. */
const last = 1_000_000

/** One run: the scheduler of its fibers, the interleaving of its trees, and what is drawn for both. */
class Course implements Scheduler.Scheduler, Interleaving {
  readonly executionMode = "async"
  readonly seed: number
  readonly lanes: Array<Lane> = []
  readonly random: Random.Random
  readonly recorded: Array<Recorded> | undefined
  private readonly maxSteps: number
  private readonly patience: number
  private readonly draw: () => number
  /** How likely a fiber goes on after one operation. */
  private readonly keeps: number
  private readonly isUneven: boolean
  private readonly skew: number
  private readonly known = new WeakMap<object, { readonly number: number; operations: number }>()
  private fibers = 0
  private steps = 0
  private turning = false
  private waiting: ReturnType<typeof setTimeout> | undefined = undefined
  /** Why the run was cut off. */
  private defect: Exit.Exit<never> | undefined = undefined
  /** The step with which the effect ended, or was given up. */
  private finished: number | undefined = undefined
  private onEnd: ((defect: Exit.Exit<never> | undefined) => void) | undefined = undefined
  private interrupt: (() => void) | undefined = undefined

  constructor(seed: number, options: RunOptions, records: boolean) {
    this.seed = seed
    this.maxSteps = options.maxSteps ?? 1_000_000
    this.patience = Duration.toMillis(Duration.fromInputUnsafe(options.patience ?? "5 seconds"))
    this.recorded = records ? [] : undefined
    const draw = (this.draw = numbers(seed))
    const others = numbers(~seed)
    this.random = {
      nextDoubleUnsafe: others,
      nextIntUnsafe: () => below(others(), 2 * Number.MAX_SAFE_INTEGER + 1) + Number.MIN_SAFE_INTEGER
    }
    this.keeps = [0.97, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3][below(draw(), 8)] ?? 1
    this.isUneven = draw() < 1 / 3
    this.skew = [1, 1, 3, 1 / 3][below(draw(), 4)] ?? 1
  }

  shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    const { currentOpCount } = fiber
    const known = this.known.get(fiber)
    const track = known ?? { number: ++this.fibers, operations: 0 }
    if (known === undefined) this.known.set(fiber, track)
    if (this.recorded !== undefined) this.note(track.number)
    // not every operation is asked about
    const operations = currentOpCount > track.operations ? currentOpCount - track.operations : currentOpCount
    track.operations = currentOpCount
    // the first operation after a switch only takes up what was interrupted: to interrupt that, too, could go on for ever
    return (currentOpCount > 1 || known === undefined) && this.draw() >= this.keeps ** operations
  }

  private note(fiber: number): void {
    const fibers = this.recorded?.at(-1)?.fibers
    if (fibers !== undefined && fibers.at(-1) !== fiber) fibers.push(fiber)
  }

  makeDispatcher(): Lane {
    return new Lane(this, this.isUneven && this.draw() < 0.3 ? 0.02 : 1)
  }

  pick(among: number): number {
    const drawn = below(this.draw() ** this.skew, among)
    this.recorded?.at(-1)?.turns.push({ drawn, among })
    return drawn
  }

  /**
   * Calls `end` once, after the returned function was called, or when the run is cut off. Fibers that were left behind get
   * the time to clean up, or their timers would keep the program alive; what goes on for ever is cut off, too.
   */
  start(interrupt: () => void, end: (defect: Exit.Exit<never> | undefined) => void): () => void {
    this.interrupt = interrupt
    this.onEnd = end
    this.wake()
    return () => {
      this.finished ??= this.steps
      this.wake()
    }
  }

  private end(): void {
    const { onEnd } = this
    this.onEnd = undefined
    onEnd?.(this.defect)
  }

  wake(): void {
    if (this.turning) return
    this.turning = true
    clearTimeout(this.waiting)
    void microtask.then(this.step)
  }

  private readonly step = (): void => this.turn(false)
  private readonly freshStep = (): void => this.turn(true)

  /** One task. `isFresh`: all promises that could go on have done so since the last one. */
  private turn(isFresh: boolean): void {
    if (this.onEnd === undefined) return
    let priority = Infinity
    for (const lane of this.lanes) priority = Math.min(priority, lane.first?.priority ?? Infinity)
    if (priority > 0 && !isFresh) {
      setImmediate(this.freshStep)
      return
    }
    if (priority === Infinity) return this.rest()
    const candidates = this.lanes.filter((lane) => lane.first?.priority === priority)
    const drawn = this.choose(candidates)
    this.recorded?.push({ drawn, among: candidates.length, fibers: [], turns: [], marks: [] })
    this.steps++
    try {
      candidates[drawn]?.take()?.run()
    } catch (error) {
      this.cutOff(error)
    }
    if (this.finished === undefined && this.steps >= this.maxSteps) this.stall("livelock")
    if (this.finished !== undefined && this.steps >= this.finished + stepsToEnd) return this.end()
    if (this.steps % stepsPerMacrotask === 0) setImmediate(this.freshStep)
    else void microtask.then(this.step)
  }

  private choose(lanes: ReadonlyArray<Lane>): number {
    if (!this.isUneven) return below(this.draw(), lanes.length)
    let left = this.draw() * lanes.reduce((sum, { weight }) => sum + weight, 0)
    for (const [index, { weight }] of lanes.entries()) {
      left -= weight
      if (left < 0) return index
    }
    return lanes.length - 1
  }

  private rest(): void {
    this.turning = false
    if (this.finished !== undefined) return this.end()
    this.waiting = setTimeout(() => {
      this.stall("deadlock")
      this.wake()
    }, this.patience)
  }

  private stall(kind: Stalled["kind"]): void {
    const { seed, steps } = this
    this.cutOff(new TestingError({ reason: new Stalled({ seed, steps, kind }) }))
  }

  private cutOff(defect: unknown): void {
    this.defect ??= Exit.die(defect)
    this.finished ??= this.steps
    this.interrupt?.()
  }
}

/** The run that a fiber belongs to. */
const CurrentCourse = Context.Reference<Course | undefined>("@tinkex/supervision/testing/Course", {
  defaultValue: () => undefined
})

/**
 * Lets everything run that needs no time: fibers, handlers, restarts, and promises that are settled already. Under a seed it
 * is exact; elsewhere, as in `it.effect`, it gives way twenty times, which suffices for what is not deeply nested.
 *
 * @category effects
 * @since 0.1.0
 */
export const settle: Effect.Effect<void> = Effect.flatMap(CurrentCourse, (course) =>
  course === undefined ? Effect.repeat(Effect.yieldNow, { times: 20 }) : Effect.yieldNowWith(last)
).pipe(Effect.asVoid)

/**
 * Writes a word into the present step of a recording, so that its readers find their way. Nothing happens elsewhere.
 *
 * @category effects
 * @since 0.1.0
 */
export const mark = (word: string): Effect.Effect<void> =>
  Effect.map(CurrentCourse, (course) => void course?.recorded?.at(-1)?.marks.push(word))

/**
 * The seed under which this runs; undefined when it is none.
 *
 * @category accessors
 * @since 0.1.0
 */
export const seed: Effect.Effect<number | undefined> = Effect.map(CurrentCourse, (course) => course?.seed)

// a busy machine must not make the clock write a warning in one run and none in the other
const clock = TestClock.layer({ warningDelay: "24 hours" })

/** The test clock must lie above the scheduler, or it does not notice when those whom it has woken are done. */
const withClock = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, Scope.Scope>> =>
  Effect.scoped(
    Effect.flatMap(Layer.build(Layer.fresh(clock)), (context) => {
      const inner = Effect.flatMap(TestClock.testClockWith(Effect.succeed), (test) => {
        const around = (effect: Effect.Effect<void>) => Effect.andThen(Effect.andThen(settle, effect), settle)
        const exact: TestClock.TestClock = {
          ...test,
          adjust: (duration) => around(test.adjust(duration)),
          setTime: (timestamp) => around(test.setTime(timestamp))
        }
        return Effect.provideService(effect, Clock.Clock, exact)
      })
      return Effect.provide(inner, context)
    })
  )

const runCourse = <A, E, R>(
  course: Course,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<Exit.Exit<A, E>, never, Exclude<R, Scope.Scope>> =>
  Effect.contextWith((outside: Context.Context<Exclude<R, Scope.Scope>>) => {
    const context = outside.pipe(
      Context.add(Scheduler.Scheduler, course),
      Context.add(CurrentInterleaving, course),
      Context.add(CurrentCourse, course),
      Context.add(Random.Random, course.random)
    )
    return Effect.callback<Exit.Exit<A, E>>((resume) => {
      // its first operation is a step like all others, however the one who asked for it came here
      const fiber = Effect.runForkWith(context)(Effect.andThen(Effect.yieldNow, withClock(effect)))
      const stop = course.start(
        () => fiber.interruptUnsafe(),
        (defect) => resume(Effect.succeed(defect ?? fiber.pollUnsafe() ?? Exit.interrupt()))
      )
      fiber.addObserver(stop)
      return Fiber.interrupt(fiber)
    })
  })

/**
 * Runs an effect under a seed, with a scope and a `TestClock` of its own, and gives its exit.
 *
 * **Example** (A deadline under a seed)
 *
 * ```ts
 * import { SeededScheduler } from "@tinkex/supervision/testing"
 * import { Effect, Exit, Fiber } from "effect"
 * import { TestClock } from "effect/testing"
 *
 * const program = Effect.gen(function* () {
 *   const slow = yield* Effect.forkChild(Effect.timeoutOption(Effect.never, "5 seconds"))
 *   yield* TestClock.adjust("5 seconds")
 *   return (yield* Fiber.join(slow))._tag
 * })
 *
 * const exit = await Effect.runPromise(SeededScheduler.run(7, program))
 * console.log(Exit.isSuccess(exit) && exit.value) // => None
 * ```
 *
 * @category running
 * @since 0.1.0
 */
export const run = <A, E, R>(
  seed: number,
  effect: Effect.Effect<A, E, R>,
  options: RunOptions = {}
): Effect.Effect<Exit.Exit<A, E>, never, Exclude<R, Scope.Scope>> =>
  Effect.suspend(() => runCourse(new Course(seed, options, false), effect))

/**
 * The same as `run`, and writes every step down. Two recordings of one seed are equal.
 *
 * @category running
 * @since 0.1.0
 */
export const record = <A, E, R>(
  seed: number,
  effect: Effect.Effect<A, E, R>,
  options: RunOptions = {}
): Effect.Effect<Recording<A, E>, never, Exclude<R, Scope.Scope>> =>
  Effect.suspend(() => {
    const course = new Course(seed, options, true)
    return Effect.map(runCourse(course, effect), (exit) => ({ seed, exit, steps: course.recorded ?? [] }))
  })

/**
 * Runs an effect under many seeds, one after the other, and gives what it returned under each. The first failure ends it with
 * `SeedFailed`, which names the seed.
 *
 * @category running
 * @since 0.1.0
 */
export const explore = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  options: ExploreOptions = {}
): Effect.Effect<ReadonlyArray<A>, TestingError, Exclude<R, Scope.Scope>> =>
  Effect.gen(function* () {
    const { from = 0, seeds = 50 } = options
    const results: Array<A> = []
    for (let seed = from; seed < from + seeds; seed++) {
      const exit = yield* run(seed, effect, options)
      if (Exit.isSuccess(exit)) {
        results.push(exit.value)
        continue
      }
      const failure: Cause.Cause<unknown> = exit.cause
      return yield* new TestingError({ reason: new SeedFailed({ seed, tried: seed - from + 1, failure }) })
    }
    return results
  })

/**
 * A recording in lines of text, one per step: `12: 0/3 f2 turn 1/2 "sent"` is the step 12, in which the first of three tasks
 * was drawn; the second fiber ran, and the second of two actors had its turn.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (recording: Recording<unknown, unknown>): string =>
  recording.steps
    .map(({ among, drawn, fibers, marks, turns }, index) =>
      [
        `${index}: ${drawn}/${among}`,
        ...fibers.map((fiber) => `f${fiber}`),
        ...turns.map((turn) => `turn ${turn.drawn}/${turn.among}`),
        ...marks.map((word) => JSON.stringify(word))
      ].join(" ")
    )
    .join("\n")
