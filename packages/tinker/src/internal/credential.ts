/** The key, or the token that the service hands out for it. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import { BadResponse, TinkerError, Unsupported } from "../TinkerError.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import type { Reply } from "./request.ts"
import type { ClientConfig, Outgoing } from "./transport.ts"

export interface Credential {
  /** What the next request carries. */
  readonly current: Effect.Effect<string, TinkerError>
  /** Told once, when the service's configuration is known. */
  readonly configure: (config: ClientConfig) => Effect.Effect<void, TinkerError>
}

/** A token with less than this to live is replaced before it is used. */
const renewMillis = 60_000
/** After a failed renewal the old token goes on for so long before the next attempt. */
const renewPauseMillis = 60_000

/** When a token ends; the signature is the server's business. A token that cannot be read counts as ended. */
const expiryMillis = (token: string): number => {
  const claims = Result.try((): unknown =>
    JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString("utf8"))
  )
  return Result.isSuccess(claims) &&
    typeof claims.success === "object" &&
    claims.success !== null &&
    "exp" in claims.success &&
    typeof claims.success.exp === "number"
    ? claims.success.exp * 1000
    : 0
}

export const make = (options: {
  readonly apiKey: string
  readonly secrets: Set<string>
  readonly exchange: (outgoing: Outgoing) => Effect.Effect<Reply, TinkerError>
}): Credential => {
  const { apiKey, exchange, secrets } = options
  const operation = "get an access token"
  let token: { readonly value: string; readonly renewAt: number } | undefined
  const lock = Semaphore.makeUnsafe(1)

  const fetch = (retries: "default" | "none") =>
    Effect.gen(function* () {
      const reply = yield* exchange({
        operation,
        endpoint: Endpoint.authToken,
        body: new TextEncoder().encode("{}"),
        retries,
        timeoutMillis: 10_000
      })
      // Straight from the bytes: the text of a reply has every known credential blanked out, the returned one perhaps too.
      const body = Result.try((): unknown => JSON.parse(new TextDecoder().decode(reply.body)))
      const value =
        Result.isSuccess(body) && typeof body.success === "object" && body.success !== null && "jwt" in body.success
          ? body.success.jwt
          : undefined
      if (typeof value !== "string" || !/^[\x21-\x7e]+$/.test(value)) {
        return yield* new TinkerError({ reason: new BadResponse({ operation, problem: "it holds no token" }) })
      }
      secrets.add(value)
      const now = yield* Clock.currentTimeMillis
      token = { value, renewAt: Math.max(expiryMillis(value) - renewMillis, now + renewPauseMillis) }
    })

  const renew = Semaphore.withPermit(
    lock,
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const old = token
      if (old === undefined || now < old.renewAt) return
      yield* fetch("none").pipe(
        Effect.catch((error) => {
          token = { value: old.value, renewAt: now + renewPauseMillis }
          return Effect.logWarning(`The old access token stays in use: ${error.message}`)
        })
      )
    })
  )

  return {
    current: Effect.gen(function* () {
      if (token === undefined) return apiKey
      if ((yield* Clock.currentTimeMillis) >= token.renewAt) yield* renew
      return token.value
    }),
    configure: (config) => {
      if (!config.pjwt_auth_enabled || apiKey.startsWith("eyJ")) return Effect.void
      if (config.credential_default_source === "credential_cmd") {
        const problem = "the service wants a credential from TINKER_CREDENTIAL_CMD. Pass a JWT (eyJ…) as the key"
        return Effect.fail(new TinkerError({ reason: new Unsupported({ feature: "A credential command", problem }) }))
      }
      return fetch("default")
    }
  }
}
