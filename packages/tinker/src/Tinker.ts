/**
 * The connection to a Tinker service.
 *
 * Nothing is sent before it is needed. `RestClient` and other modules that only need `request` take its type from
 * `internal/request.ts`, so that this module can bring all services together.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import type { Request } from "./internal/request.ts"

/** How the connection was set up; the key is not part of it. */
export interface Settings {
  readonly baseUrl: string
  readonly deadline: Duration.Duration
}

/** The service's settings and the one way to send it anything. */
export class Tinker extends Context.Service<Tinker, { readonly config: Settings; readonly request: Request }>()(
  "@tinkex/tinker/Tinker"
) {}
