import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type { CallOptions } from "../CallOptions.ts"
import type { TinkerError } from "../TinkerError.ts"

/** An answer of any status, read to its end. */
export interface Reply {
  readonly status: number
  /** Names in lower case. */
  readonly headers: { readonly [name: string]: string | undefined }
  readonly body: Uint8Array
  /** The body as text, credentials blanked out. */
  readonly text: () => string
}

/** What to send and what to make of the answer. */
export interface RequestOptions<A> {
  /** What the caller is doing, for errors and spans. */
  readonly operation: string
  /** Bytes are sent as they are, anything else as JSON. */
  readonly body?: unknown
  /** Default `application/json`. */
  readonly contentType?: string | undefined
  /** Values that are `undefined` or empty are left out. */
  readonly query?: Record<string, string | number | boolean | undefined> | undefined
  readonly headers?: Record<string, string> | undefined
  /** Whose leave is asked for. Default: the client's own. */
  readonly credential?: string | undefined
  /** A schema of the JSON body, or a function of the answer (which has a 2xx status, or one that `accepts` lets through). */
  readonly decode: Schema.Decoder<A> | ((reply: Reply) => Effect.Effect<A, TinkerError>)
  /** `none`: one try. Default: until the deadline. */
  readonly retries?: "default" | "none" | undefined
  /** What the caller of this one call wants otherwise. */
  readonly call?: CallOptions | undefined
  /** Other answers than 2xx to read. `repeated`: an earlier copy of the same request may have been applied. */
  readonly accepts?: ((reply: Reply, repeated: boolean) => boolean) | undefined
  /** Limit of one try. Default 60 seconds. */
  readonly timeout?: Duration.Input | undefined
}

/**
 * The one way to the service: credential, retries with jitter up to the deadline, `Retry-After` and `x-should-retry`, the
 * billing pause, and the mapping of statuses to reasons.
 */
export interface Request {
  <A>(
    endpoint: { readonly method: string; readonly path: string },
    options: RequestOptions<A>
  ): Effect.Effect<A, TinkerError>
}
