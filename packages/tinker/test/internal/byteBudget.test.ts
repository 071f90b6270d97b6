import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as ByteBudget from "../../src/internal/byteBudget.ts"

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

describe("ByteBudget", () => {
  it.effect("lets one overdraw it, and makes the next wait until that is paid back", () =>
    Effect.gen(function* () {
      const budget = ByteBudget.make(10)
      const order: Array<string> = []
      const use = (name: string, bytes: number, seconds: number) =>
        Effect.forkChild(
          budget.spend(bytes)(
            Effect.gen(function* () {
              order.push(name)
              yield* Effect.sleep(`${seconds} seconds`)
            })
          )
        )
      yield* use("large", 100, 2)
      yield* use("small", 1, 1)
      yield* use("other", 1, 1)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([order, budget.left()], [["large"], -90])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([order, budget.left()], [["large", "small", "other"], 8])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(budget.left(), 10)
    })
  )

  it.effect("has back what an interrupted one had, at once", () =>
    Effect.gen(function* () {
      const budget = ByteBudget.make(0)
      const first = yield* Effect.forkChild(budget.spend(5)(Effect.never), { startImmediately: true })
      const second = yield* Effect.forkChild(budget.spend(7)(Effect.never), { startImmediately: true })
      yield* Fiber.interrupt(first)
      assert.strictEqual(budget.left(), -7)
      yield* Fiber.interrupt(second)
      assert.strictEqual(budget.left(), 0)
    })
  )

  it.effect.prop(
    "is whole again in the end, whoever fails, dies or goes away, and lets everybody in by their order",
    [
      Schema.Array(Schema.Struct({ bytes: int(0, 30), millis: int(1, 50), end: int(0, 3), gone: int(0, 120) })).check(
        Schema.isMaxLength(12)
      ),
      int(0, 20)
    ],
    ([uses, size]) =>
      Effect.gen(function* () {
        const budget = ByteBudget.make(size)
        const order: Array<number> = []
        const fibers: Array<Fiber.Fiber<void, string>> = []
        for (const [i, use] of uses.entries()) {
          const work: Effect.Effect<void, string> = Effect.gen(function* () {
            order.push(i)
            yield* Effect.sleep(use.millis)
            if (use.end === 1) return yield* Effect.fail("failed")
            if (use.end === 2) return yield* Effect.die("died")
          })
          const fiber = yield* Effect.forkChild(budget.spend(use.bytes)(work), { startImmediately: true })
          fibers.push(fiber)
          if (use.end === 3) {
            yield* Effect.forkChild(Effect.andThen(Effect.sleep(use.gone), Fiber.interrupt(fiber)))
          }
        }
        yield* TestClock.adjust("10 seconds")
        for (const [i, fiber] of fibers.entries()) {
          const exit = fiber.pollUnsafe()
          if (exit === undefined) assert.fail(`use ${i} never ended`)
          if (uses[i]?.end === 0) assert.isTrue(Exit.isSuccess(exit))
        }
        assert.strictEqual(budget.left(), size)
        assert.deepStrictEqual(
          order,
          order.toSorted((a, b) => a - b)
        )
      })
  )
})
