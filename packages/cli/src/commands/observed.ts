import * as Effect from "effect/Effect"

/** Sends the spans of an effect to OpenTelemetry where that is asked for; the SDK is loaded only then. */
export const observed =
  (otel: boolean) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    otel
      ? Effect.flatMap(
          Effect.promise(() => import("../Telemetry.ts")),
          (telemetry) => Effect.provide(effect, telemetry.layerOtlp)
        )
      : effect
