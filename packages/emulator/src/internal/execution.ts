/**
 * From an accepted request to its result: the operations of a model one after another in the order of their numbers, each on its
 * own turn of the event loop (W1), and samples at once.
 */
import * as Effect from "effect/Effect"
import type * as FaultPlan from "../FaultPlan.ts"
import { failed, type OperationFailed } from "./compute.ts"
import { dead, deathOf, noAccess, notLoaded } from "./deaths.ts"
import type { Model, Op, Work } from "./entities.ts"
import type { Future, Result } from "./futures.ts"
import { type Audit, refused, type Refused, type Reply } from "./reply.ts"
import { submitted } from "./submitted.ts"
import type { World } from "./world.ts"

/** Accepts one operation, or recognizes it as one that was accepted before. */
export const submit = (
  world: World,
  model: Model,
  request: {
    readonly operation: FaultPlan.Operation
    readonly seqId: number
    readonly digest: string
    readonly work: Work
  }
): Effect.Effect<Reply, Refused> =>
  Effect.suspend(() => {
    const { digest, operation, seqId, work } = request
    const audit: Audit = { modelId: model.id, seqId, digest }
    const claim = model.sequence.find(seqId, digest)
    if (claim._tag === "Duplicate") {
      return Effect.succeed(submitted(claim.entry.future, { ...audit, duplicate: true }, false))
    }
    if (claim._tag === "Conflict") {
      const original = world.settings.conflicts === "original" ? model.sequence.owner(seqId) : undefined
      if (original !== undefined)
        return Effect.succeed(submitted(original.future, { ...audit, duplicate: true }, false))
      const detail = `seq_id ${seqId} of model ${model.id} was used for another request; expected ${model.sequence.position}`
      return Effect.fail(refused(409, detail, audit))
    }
    const faults = world.faults.operation(operation, { modelId: model.id, seqId })
    const future = world.futures.create(operation, world.now(), { modelId: model.id, seqId, user: model.run.owner })
    const op: Op = { operation, seqId, future, faults, work }
    model.sequence.claim(seqId, digest, op)
    model.lastUsed = world.now()
    model.run.lastRequestAt = model.lastUsed
    const reply = submitted(future, audit, faults.lose)
    const dead = deathOf(model)
    if (dead === undefined) return Effect.as(start(world, model), reply)
    op.work = undefined
    world.settle(op.future, { _tag: "Failed", error: dead, category: "server" })
    return Effect.succeed(reply)
  })

/** Refuses a submission whose number is known; what comes behind it does not wait for it. */
export const refuse = (world: World, model: Model, seqId: number, error: Refused): Effect.Effect<never, Refused> =>
  Effect.suspend(() => {
    model.sequence.refuse(seqId)
    return Effect.andThen(start(world, model), Effect.fail(error))
  })

/** Whether there is room for another sample. */
export const hasRoom = (world: World): boolean => world.drawing < world.settings.samplingCapacity

/** Accepts a sample. Samples have no order: each is drawn at once, taking turns with everything else. */
export const submitSample = (
  world: World,
  request: {
    readonly audit: Audit
    readonly user: string
    readonly samples: number
    /** Default: a new one. */
    readonly id: string | undefined
    readonly register: (future: Future) => void
    readonly work: (futureId: string) => Effect.Effect<Result, OperationFailed>
  }
): Effect.Effect<Reply> =>
  Effect.suspend(() => {
    const { audit, id, register, samples, user, work } = request
    const { samplerId, seqId } = audit
    const place = {
      ...(samplerId === undefined ? {} : { samplerId }),
      ...(seqId === undefined ? {} : { seqId })
    }
    const faults = world.faults.operation("asample", place)
    const future = world.futures.create("asample", world.now(), { ...place, user, samples }, id)
    register(future)
    const op: Op = { operation: "asample", seqId: seqId ?? -1, future, faults, work: undefined }
    const draw: Effect.Effect<void> = Effect.suspend(() => {
      const { paused } = world.faults
      if (paused !== undefined) return Effect.andThen(Effect.sleep(paused.forMillis), draw)
      if (faults.forget) return forget(world, op)
      return Effect.flatMap(outcome(op, work(future.id)), (result) => finish(world, op, result))
    })
    const drawn = Effect.sync(() => void world.drawing--)
    world.drawing++
    return Effect.as(world.background(Effect.ensuring(draw, drawn)), submitted(future, audit, faults.lose))
  })

/** Unloads at once, whatever is waiting. Asked again it answers the same. */
export const submitUnload = (world: World, modelId: string, user: string): Effect.Effect<Reply, Refused> =>
  Effect.suspend(() => {
    const model = world.models.get(modelId)
    if (model === undefined) return Effect.fail(refused(400, notLoaded(modelId), { modelId }))
    if (model.run.owner !== user) return Effect.fail(noAccess({ modelId }))
    const { lose } = world.faults.operation("unload_model", { modelId })
    world.unload(model, "it was unloaded by request")
    const future = world.futures.create("unload_model", world.now(), { modelId, user })
    world.futures.settle(future, { _tag: "Json", body: { model_id: modelId, type: "unload_model" } }, world.now())
    return Effect.succeed(submitted(future, { modelId }, lose))
  })

const start = (world: World, model: Model): Effect.Effect<void> => {
  if (model.running) return Effect.void
  model.running = true
  return world.background(drive(world, model))
}

const drive = (world: World, model: Model): Effect.Effect<void> => {
  const next: Effect.Effect<void> = Effect.suspend(() => {
    const { paused } = world.faults
    if (paused !== undefined) return Effect.andThen(Effect.sleep(paused.forMillis), next)
    const op = deathOf(model) === undefined ? model.sequence.take() : undefined
    if (op === undefined) {
      model.running = false
      return Effect.void
    }
    return Effect.andThen(Effect.andThen(execute(world, model, op), Effect.yieldNow), next)
  })
  return next
}

const execute = (world: World, model: Model, op: Op): Effect.Effect<void> => {
  const { poison } = op.faults
  const { work } = op
  op.work = undefined
  if (op.faults.forget) return forget(world, op)
  const when = poison === undefined ? undefined : (poison.when ?? "before")
  const harm = world.poison(model, poison?.unflagged)
  const run: Effect.Effect<Result, OperationFailed> =
    work === undefined
      ? Effect.fail(failed(`${op.operation} was executed before`, "server"))
      : Effect.suspend(() => work(model, op.seqId))
  const ended =
    when === "before"
      ? Effect.map(harm, () => dead(model))
      : when === "during"
        ? Effect.map(Effect.andThen(outcome(op, run), harm), () => dead(model))
        : outcome(op, run)
  return Effect.flatMap(ended, (result) => deliver(world, model, op, result, when === "after" ? harm : Effect.void))
}

const forget = (world: World, op: Op): Effect.Effect<void> =>
  Effect.sync(() => {
    op.future.expired = true
    world.settle(op.future, { _tag: "Failed", error: "it was forgotten", category: "server" })
  })

const outcome = (op: Op, work: Effect.Effect<Result, OperationFailed>): Effect.Effect<Result> => {
  const { softFail, spoil } = op.faults
  const run: Effect.Effect<Result, OperationFailed> =
    softFail === undefined
      ? work
      : Effect.fail(failed(`${op.operation} failed by request of the fault plan`, softFail.category ?? "server"))
  return run.pipe(
    Effect.map((result) =>
      spoil !== undefined && result._tag === "Output" ? (result.spoiled?.(spoil.factor) ?? result) : result
    ),
    Effect.catch((failure) =>
      Effect.succeed<Result>({ _tag: "Failed", error: failure.error, category: failure.category })
    ),
    Effect.catchDefect((defect) =>
      Effect.succeed<Result>({ _tag: "Failed", error: `internal error: ${String(defect)}`, category: "server" })
    )
  )
}

/** `harm` comes to the model between the end of its operation and the moment when anybody hears of it. */
const deliver = (
  world: World,
  model: Model,
  op: Op,
  result: Result,
  harm: Effect.Effect<void>
): Effect.Effect<void> => {
  // A model may have died while its operation ran; then the operation has not happened.
  // A checkpoint that poisons its model was loaded all the same.
  const loaded = op.operation === "load_weights" && !model.unloaded
  const final = loaded || deathOf(model) === undefined ? result : dead(model)
  return Effect.flatMap(harm, () => finish(world, op, final))
}

const finish = (world: World, op: Op, result: Result): Effect.Effect<void> => {
  const { delay, expire } = op.faults
  if (expire) op.future.expired = true
  if (delay === undefined) {
    world.settle(op.future, result)
    return Effect.void
  }
  op.future.queueState = delay.queueState ?? "active"
  return world.background(
    Effect.andThen(
      Effect.sleep(delay.millis),
      Effect.sync(() => world.settle(op.future, result))
    )
  )
}

/** Nobody wants this result any more. What has ended already stays as it is. */
export const cancel = (world: World, requestId: string, user: string): Effect.Effect<void, Refused> =>
  Effect.suspend(() => {
    const future = world.futures.find(requestId, world.now())
    if (typeof future === "string") return Effect.fail(refused(404, `Request ${requestId} not found`))
    if (future.place.user !== user) return Effect.fail(noAccess())
    const error = `Request ${requestId} was cancelled`
    world.settle(future, { _tag: "Failed", error, category: "user" })
    return Effect.void
  })
