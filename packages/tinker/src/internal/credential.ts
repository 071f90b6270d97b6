/** The key, or the token that the service hands out for it. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { BadResponse, InvalidConfig, TinkerError } from "../TinkerError.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import { commandVariable } from "./credentialCommand.ts"
import type { Reply } from "./request.ts"
import type { ClientConfig, Outgoing } from "./transport.ts"

export interface Credential {
  /** The key itself, before any exchange. */
  readonly key: Effect.Effect<string, TinkerError>
  /** What the next request carries. */
  readonly current: Effect.Effect<string, TinkerError>
  /** Told once, when the service's configuration is known. */
  readonly configure: (config: ClientConfig) => Effect.Effect<void, TinkerError>
  /** The service refused this credential: whether there is another one now. A key that was given is all there is. */
  readonly replace: (refused: string) => Effect.Effect<boolean>
  /** The token that is held, where one is. */
  readonly token: () => string | undefined
  /** Whether the service handed it out. */
  readonly exchanged: () => boolean
}

/** A token with less than this to live is replaced before it is used. */
const renewMillis = 60_000
/** And in the background, so that nobody has to wait for it, when it has less than this. */
const earlyMillis = 300_000
/** After a failed renewal the old token goes on for so long before the next attempt. */
const renewPauseMillis = 60_000
/** A key that a command printed is used for so long before the command is asked again. */
const commandMillis = 300_000

/** The claims of a token; the signature is the server's business. */
export const claimsOf = (token: string): Readonly<Record<string, unknown>> | undefined => {
  const claims = Result.try((): unknown =>
    JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString("utf8"))
  )
  return Result.isSuccess(claims) && typeof claims.success === "object" && claims.success !== null
    ? { ...claims.success }
    : undefined
}

/** When a token ends. One that cannot be read counts as ended. */
const expiryMillis = (token: string): number => {
  const exp = claimsOf(token)?.exp
  return typeof exp === "number" && Number.isFinite(exp) ? exp * 1000 : 0
}

const isToken = (credential: string): boolean => credential.startsWith("eyJ")

export const make = (options: {
  readonly apiKey: string | undefined
  /** Runs the command that prints a key, where there is one. */
  readonly command: Effect.Effect<string, TinkerError> | undefined
  readonly secrets: Set<string>
  readonly exchange: (
    credential: Effect.Effect<string, TinkerError>
  ) => (outgoing: Outgoing) => Effect.Effect<Reply, TinkerError>
  /** Where the renewal in the background lives. */
  readonly scope: Scope.Scope
}): Credential => {
  const { apiKey, command, exchange, scope, secrets } = options
  const operation = "get an access token"
  let token: { readonly value: string; readonly renewAt: number } | undefined
  let printed: { readonly value: string; readonly until: number } | undefined
  /** What is exchanged for a token; set where the service wants that. */
  let source: Effect.Effect<string, TinkerError> | undefined
  const lock = Semaphore.makeUnsafe(1)
  const commandLock = Semaphore.makeUnsafe(1)

  const fromCommand = (command: Effect.Effect<string, TinkerError>) =>
    Semaphore.withPermit(
      commandLock,
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        if (printed !== undefined && now < printed.until) return printed.value
        const value = yield* command
        secrets.add(value)
        const end = isToken(value) ? expiryMillis(value) - renewMillis : Number.POSITIVE_INFINITY
        printed = { value, until: Math.max(Math.min(now + commandMillis, end), now + 1000) }
        return value
      })
    )

  const key =
    apiKey !== undefined
      ? Effect.succeed(apiKey)
      : command === undefined
        ? Effect.die(new Error("neither a key nor a command was given"))
        : fromCommand(command)
  /** What is sent as long as there is no token. */
  let direct = key

  const fetch = Effect.fnUntraced(function* (source: Effect.Effect<string, TinkerError>, retries: "default" | "none") {
    const reply = yield* exchange(source)({
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

  /** Gets a new token, unless somebody else did since `isDue` was asked. Gives whether it is a new one. */
  const renew = (isDue: (held: { readonly value: string; readonly renewAt: number }, now: number) => boolean) =>
    Semaphore.withPermit(
      lock,
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const old = token
        if (old === undefined || source === undefined) return false
        if (!isDue(old, now)) return true
        return yield* fetch(source, "none").pipe(
          Effect.as(true),
          Effect.catch((error) => {
            token = { value: old.value, renewAt: Math.max(old.renewAt, now + renewPauseMillis) }
            return Effect.as(Effect.logWarning(`The old access token stays in use: ${error.message}`), false)
          })
        )
      })
    )

  const renewEarly = Effect.gen(function* () {
    while (true) {
      const held = token?.value ?? ""
      const early = expiryMillis(held) - earlyMillis - (yield* Clock.currentTimeMillis)
      yield* Effect.sleep(Math.max(early, renewPauseMillis))
      yield* renew(({ value }) => value === held)
    }
  })

  return {
    key,
    current: Effect.gen(function* () {
      if (token === undefined) return yield* direct
      if ((yield* Clock.currentTimeMillis) >= token.renewAt) yield* renew(({ renewAt }, now) => now >= renewAt)
      return token.value
    }),
    configure: Effect.fnUntraced(function* (config) {
      // Who asked first may have been interrupted between this and the end of the start.
      if (source !== undefined) return
      if (!config.pjwt_auth_enabled || (apiKey !== undefined && isToken(apiKey))) return
      if (config.credential_default_source === "credential_cmd" && command === undefined) {
        const problem = "is not set, and the service takes no other credential. Set it, or use a JWT (eyJ…) as the key"
        return yield* new TinkerError({ reason: new InvalidConfig({ field: commandVariable, problem }) })
      }
      const wanted =
        command !== undefined && config.credential_default_source === "credential_cmd" ? fromCommand(command) : key
      if (isToken(yield* wanted)) {
        direct = wanted
        return
      }
      yield* fetch(wanted, "default")
      source = wanted
      yield* Effect.forkIn(renewEarly, scope)
    }),
    replace: (refused) =>
      Effect.suspend(() => {
        if (token !== undefined) return renew(({ value }) => value === refused)
        if (printed === undefined) return Effect.succeed(false)
        if (printed.value === refused) printed = undefined
        return Effect.succeed(true)
      }),
    exchanged: () => token !== undefined,
    token: () => token?.value ?? (printed !== undefined && isToken(printed.value) ? printed.value : apiKey)
  }
}
