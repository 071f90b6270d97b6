/** The control plane: as a service, and as JSON under `/emulator/v1`. */
import * as Effect from "effect/Effect"
import type { EmulatorControl, LedgerEntry, ModelSnapshot } from "../EmulatorControl.ts"
import { EmulatorError, ModelNotFound } from "../EmulatorError.ts"
import * as FaultPlan from "../FaultPlan.ts"
import type { Trainee } from "./compute.ts"
import { jsonBody } from "./handlers/body.ts"
import * as Operations from "./operations.ts"
import { type ApiRequest, json, ok, type Refused, type Reply } from "./reply.ts"
import type { Model } from "./entities.ts"
import type { World } from "./world.ts"

const snapshotOf = (model: Model): ModelSnapshot => ({
  modelId: model.id,
  sessionId: model.session.id,
  baseModel: model.run.baseModel,
  loraRank: model.run.rank,
  status: model.unloaded ? "unloaded" : "loaded",
  corrupted: model.run.corrupted,
  steps: model.run.ledger.length,
  nextSeqId: model.sequence.position
})

const notFound = (modelId: string) => new EmulatorError({ reason: new ModelNotFound({ modelId }) })

/** The model used last of those that still work. */
const lastUsed = (world: World): Model | undefined => {
  const [last] = [...world.models.values()]
    .filter((model) => !model.unloaded && !model.broken && !model.run.corrupted)
    .toSorted((a, b) => b.lastUsed - a.lastUsed)
  return last
}

/** Strikes once a timed fault is due; with no model in memory there is nothing to strike. */
export const startTimed = (world: World, plan: FaultPlan.FaultPlan): Effect.Effect<void> =>
  Effect.forEach(
    plan.faults,
    (fault) => {
      if (fault._tag !== "CorruptAfter" && fault._tag !== "LoseSessionAfter") return Effect.void
      const strike = Effect.suspend(() => {
        const last = lastUsed(world)
        if (last === undefined) return Effect.void
        world.faults.timed(fault, { modelId: last.id })
        return fault._tag === "CorruptAfter"
          ? world.poison(last, fault.unflagged)
          : Effect.sync(() => world.expire(last.session))
      })
      return world.background(Effect.andThen(Effect.sleep(fault.millis), strike))
    },
    { discard: true }
  )

export const make = (world: World): EmulatorControl => {
  const find = (modelId: string): Effect.Effect<Model, EmulatorError> =>
    Effect.suspend(() => {
      const model = world.models.get(modelId)
      return model === undefined ? Effect.fail(notFound(modelId)) : Effect.succeed(model)
    })
  const hash = (modelId: string, of: (trainee: Trainee) => string) =>
    Effect.flatMap(find(modelId), ({ trainee }) =>
      trainee === undefined ? Effect.fail(notFound(modelId)) : Effect.sync(() => of(trainee))
    )
  return {
    models: Effect.sync(() => Array.from(world.models.values(), snapshotOf)),
    ledger: (modelId) =>
      Effect.suspend((): Effect.Effect<ReadonlyArray<LedgerEntry>, EmulatorError> => {
        const run = world.catalog.runs.get(modelId)
        return run === undefined ? Effect.fail(notFound(modelId)) : Effect.succeed([...run.ledger])
      }),
    stateHash: (modelId) => hash(modelId, (trainee) => trainee.stateHash),
    weightsHash: (modelId) => hash(modelId, (trainee) => trainee.weightsHash),
    checkpoints: Effect.sync(() =>
      [...world.catalog.runs.values()].flatMap((run) =>
        run.checkpoints.map((record) => ({
          path: Operations.pathOf(run.id, record),
          runId: run.id,
          steps: record.steps,
          sizeBytes: record.sizeBytes,
          damage: record.damage
        }))
      )
    ),
    poison: (modelId) => Effect.flatMap(find(modelId), (model) => world.poison(model)),
    inject: (plan) =>
      Effect.suspend(() => {
        world.faults.arm(plan)
        return startTimed(world, plan)
      }),
    firedFaults: Effect.sync(() => [...world.faults.fired]),
    telemetry: Effect.sync(() => [...world.records.telemetry]),
    requests: Effect.sync(() => [...world.records.requests])
  }
}

const readPlan = jsonBody(FaultPlan.FaultPlan)

/** Answers a control request, or leaves it to the API. */
export const route = (control: EmulatorControl): ((request: ApiRequest) => Effect.Effect<Reply> | undefined) => {
  const known = <A>(effect: Effect.Effect<A, EmulatorError | Refused>): Effect.Effect<Reply> =>
    effect.pipe(
      Effect.map((value) => ok(value)),
      Effect.catchTags({
        EmulatorError: (error) => Effect.succeed(json(404, { detail: error.message })),
        Refused: (error) => Effect.succeed(error.reply)
      })
    )
  return (request) => {
    if (!request.path.startsWith("/emulator/v1/")) return undefined
    const [what = "", id = "", part = ""] = request.path.slice("/emulator/v1/".length).split("/")
    switch (`${request.method} ${what}${part === "" ? "" : `/${part}`}`) {
      case "GET models":
        return known(control.models)
      case "GET models/ledger":
        return known(control.ledger(id))
      case "GET models/hash":
        return known(Effect.all({ stateHash: control.stateHash(id), weightsHash: control.weightsHash(id) }))
      case "POST models/poison":
        return known(Effect.as(control.poison(id), {}))
      case "GET checkpoints":
        return known(control.checkpoints)
      case "GET telemetry":
        return known(control.telemetry)
      case "GET requests":
        return known(control.requests)
      case "GET faults":
        return known(control.firedFaults)
      case "POST faults":
        return known(Effect.as(Effect.flatMap(readPlan(request), control.inject), {}))
      default:
        return Effect.succeed(json(404, { detail: "Not Found" }))
    }
  }
}
