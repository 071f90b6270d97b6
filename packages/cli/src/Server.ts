/**
 * The server that a command talks to: the real one, an emulator inside the command, or the emulator of another process. All
 * three are reached over HTTP through the same client.
 */
import * as NodePath from "node:path"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { Emulator } from "@tinkex/emulator/Emulator"
import type { FaultPlan } from "@tinkex/emulator/FaultPlan"
import { RestClient } from "@tinkex/tinker/RestClient"
import { Tinker } from "@tinkex/tinker/Tinker"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import * as Endpoint from "@tinkex/tinker/wire/Endpoint"
import * as CommandError from "./CommandError.ts"
import type { Target } from "./TrainSettings.ts"

/** What an emulator tells of itself, and the real service does not. */
export class Inspector extends Context.Service<
  Inspector,
  {
    /** Hash of weights and optimizer of a live model; none where the server does not tell. */
    readonly stateHash: (trainingRunId: string) => Effect.Effect<Option.Option<string>>
  }
>()("@tinkex/cli/Inspector") {
  static readonly layerNone = Layer.succeed(Inspector, Inspector.of({ stateHash: () => Effect.succeedNone }))
}

// Emulators accept any key of the right form.
const emulatorKey = Redacted.make("tml-emulator")

const embedded = (options: EmbeddedOptions) => {
  const inspector = Layer.effect(
    Inspector,
    Effect.map(Emulator, ({ control }) => Inspector.of({ stateHash: (id) => Effect.option(control.stateHash(id)) }))
  )
  const client = Layer.unwrap(
    Effect.map(Emulator, ({ url }) => Tinker.layer({ apiKey: emulatorKey, baseUrl: url }))
  ).pipe(Layer.provide(FetchHttpClient.layer))
  return Layer.merge(inspector, client).pipe(
    Layer.provide(Emulator.layer({ directory: NodePath.join(options.directory, "emulator"), faults: options.faults }))
  )
}

const Hashes = Schema.Struct({ stateHash: Schema.String })

const remote = (url: string) => {
  const inspector = Layer.effect(
    Inspector,
    Effect.map(HttpClient.HttpClient, (http) =>
      Inspector.of({
        stateHash: (id) =>
          http.get(`${url}/emulator/v1/models/${id}/hash`).pipe(
            Effect.flatMap(HttpClientResponse.filterStatusOk),
            Effect.flatMap(HttpClientResponse.schemaBodyJson(Hashes)),
            Effect.timeout("10 seconds"),
            Effect.map(({ stateHash }) => stateHash),
            Effect.option
          )
      })
    )
  )
  return Layer.merge(inspector, Tinker.layer({ apiKey: emulatorKey, baseUrl: url })).pipe(
    Layer.provide(FetchHttpClient.layer)
  )
}

interface EmbeddedOptions {
  /** The run's folder. */
  readonly directory: string
  readonly faults: FaultPlan | undefined
}

/** Clients for a target, and the inspector that goes with it. */
export const layer = (target: Target, options: EmbeddedOptions) => {
  switch (target._tag) {
    case "Service":
      return Layer.merge(Inspector.layerNone, Tinker.layerConfig())
    case "Embedded":
      return embedded(options)
    case "Remote":
      return remote(target.url)
  }
}

/** Clients for a command that only talks to a server that is already there. */
export const layerFor = (emulatorUrl: Option.Option<string>) =>
  Option.match(emulatorUrl, { onNone: () => Tinker.layerConfig(), onSome: (url) => remote(url) })

/** Whether there is a key for the real service at all. */
export const hasKey = Effect.forEach(["TINKER_API_KEY", "TINKER_CREDENTIAL_CMD"], (name) =>
  Config.option(Config.String(name)).pipe(
    Effect.map((value) => Option.exists(value, (text) => text.trim() !== "")),
    Effect.orElseSucceed(() => false)
  )
).pipe(Effect.map((found) => found.includes(true)))

/** Fails before anything is read or sent where there is none. */
export const requireKey = Effect.filterOrFail(
  hasKey,
  (has) => has,
  () =>
    CommandError.make(
      new CommandError.BadSetting({
        setting: "TINKER_API_KEY",
        problem: "is not set",
        hint: "Set it to the key of your account, tml-..., or let TINKER_CREDENTIAL_CMD print one, or try --emulator, which needs none."
      })
    )
)

const isAnswered = (error: TinkerError) => error.reason._tag === "NotFound" || error.reason._tag === "BadRequest"

/** The innermost message: that of `fetch` only says that it failed. */
const causeOf = (error: unknown): string =>
  error instanceof Error ? (error.cause === undefined ? error.message : causeOf(error.cause)) : String(error)

/** Whether anything answers at all, whatever it says: the clients find out the rest. */
const knock = (url: string) =>
  Effect.tryPromise({
    try: (signal) => fetch(`${url}${Endpoint.healthz.path}`, { signal, redirect: "manual" }),
    catch: (error) => CommandError.make(new CommandError.Unreachable({ url, problem: causeOf(error) }))
  }).pipe(
    Effect.timeoutOrElse({
      duration: "5 seconds",
      orElse: () =>
        Effect.fail(CommandError.make(new CommandError.Unreachable({ url, problem: "no answer within 5 s" })))
    }),
    Effect.retry({ schedule: Schedule.spaced("300 millis"), times: 2 })
  )

/**
 * Asks once whether anybody is there and, given a model, whether it is offered, so that a wrong address or name is known in
 * seconds: later a lost connection is waited out for minutes, as it should be in the middle of a run.
 */
export const check = Effect.fn("Server.check")(function* (model?: string) {
  const { config } = yield* Tinker
  const url = config.baseUrl
  yield* knock(url)
  if (model === undefined) return
  const rest = yield* RestClient
  const offered = yield* rest.getServerCapabilities().pipe(
    Effect.catchIf(isAnswered, () => Effect.succeed([])),
    Effect.timeoutOrElse({
      duration: "60 seconds",
      orElse: () => {
        const problem = "it does not say within 60 s which models it offers"
        return Effect.fail(CommandError.make(new CommandError.Unreachable({ url, problem })))
      }
    })
  )
  const known = offered.flatMap(({ modelName }) => Option.toArray(modelName))
  if (known.length > 0 && !known.includes(model)) {
    return yield* CommandError.make(new CommandError.UnknownModel({ model, server: url, known }))
  }
})
