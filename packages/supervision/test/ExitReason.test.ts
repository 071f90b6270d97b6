import { assert, describe, it } from "@effect/vitest"
import { ExitReason } from "@tinkex/supervision"
import { Cause, Effect, Exit, Fiber, Schema } from "effect"

const tag = (exit: Exit.Exit<unknown, unknown>, requested = false) => ExitReason.fromExit(exit, requested)._tag

describe("fromExit", () => {
  it("success is normal, with its value", () => {
    assert.deepStrictEqual(ExitReason.fromExit(Exit.succeed(3), false), { _tag: "Normal", value: 3 })
  })

  it("an interruption is a shutdown only if the supervisor asked for it", () => {
    assert.strictEqual(tag(Exit.interrupt(1), true), "Shutdown")
    assert.strictEqual(tag(Exit.interrupt(1), false), "Killed")
  })

  it("a defect outweighs everything, a failure outweighs an interruption", () => {
    const all = Cause.combine(Cause.combine(Cause.interrupt(1), Cause.fail("f")), Cause.die("d"))
    const reason = ExitReason.fromExit(Exit.failCause(all), true)
    assert.isTrue(reason._tag === "Crash" && reason.error === "d" && reason.cause.reasons.length === 3)
    const mixed = Cause.combine(Cause.interrupt(1), Cause.fail("f"))
    assert.strictEqual(tag(Exit.failCause(mixed), true), "Crash")
  })

  it.effect("a finalizer that dies during a requested stop is a crash, as fibers really end", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(Effect.ensuring(Effect.never, Effect.die("finalizer")), {
        startImmediately: true
      })
      yield* Fiber.interrupt(fiber)
      const exit = yield* Fiber.await(fiber)
      assert.strictEqual(tag(exit, true), "Crash")
    })
  )

  it("Stop is a clean end", () => {
    const reason = ExitReason.fromExit(Exit.fail(new ExitReason.Stop({ info: "done" })), false)
    assert.deepStrictEqual(reason, { _tag: "Shutdown", info: "done" })
    assert.isTrue(ExitReason.isClean(reason))
  })

  it("an empty cause has a reason too", () => {
    assert.strictEqual(tag(Exit.failCause(Cause.empty)), "Killed")
  })

  it("reasons survive a process boundary", () => {
    const codec = Schema.toCodecJson(ExitReason.ExitReason)
    const reason = ExitReason.crash(new Error("boom"))
    const back = Schema.decodeUnknownSync(codec)(JSON.parse(JSON.stringify(Schema.encodeSync(codec)(reason))))
    assert.strictEqual(ExitReason.format(back), "crash (Error: boom)")
  })
})
