/** What a handler answers, before a carrier puts it on a wire. */
import * as Data from "effect/Data"

/** Greatest size of a body, as it is sent and once it is decompressed. */
export const maxBodyBytes = 256 * 1024 * 1024

export interface ApiRequest {
  readonly method: string
  /** Path without the query, percent-encoding removed. */
  readonly path: string
  readonly query: URLSearchParams
  /** Looks a header up by its lower-case name. */
  readonly header: (name: string) => string | undefined
  readonly body: Uint8Array
}

/** A path without its percent-encoding; none for one that cannot be read. */
export const decodePath = (path: string): string | undefined => {
  try {
    return path.includes("%") ? decodeURIComponent(path) : path
  } catch {
    return undefined
  }
}

/** A request that was let in. */
export interface Caller extends ApiRequest {
  readonly user: string
}

/** What the audit says about a request besides its endpoint and status. */
export interface Audit {
  readonly modelId?: string
  readonly samplerId?: string
  readonly seqId?: number
  readonly digest?: string
  readonly duplicate?: boolean
}

export interface Reply {
  readonly status: number
  readonly contentType: string
  readonly body: string | Uint8Array
  readonly headers?: Readonly<Record<string, string>>
  readonly audit?: Audit
  /** The connection is dropped in place of this reply. */
  readonly dropped?: boolean
  /** The connection breaks in the middle of the body. */
  readonly cut?: boolean
  /** Between one byte of the body and the next. */
  readonly trickleMillis?: number
  /** It carries the result of an operation, good or bad. */
  readonly finished?: boolean
}

export const json = (
  status: number,
  value: unknown,
  more?: Pick<Reply, "headers" | "audit" | "dropped" | "finished">
): Reply => ({
  status,
  contentType: "application/json",
  body: JSON.stringify(value),
  ...more
})

export const ok = (value: unknown, more?: Pick<Reply, "headers" | "audit" | "dropped" | "finished">): Reply =>
  json(200, value, more)

/** A request that is answered with an error status. */
export class Refused extends Data.TaggedError("Refused")<{
  readonly status: number
  readonly detail: unknown
  readonly audit?: Audit
}> {
  get reply(): Reply {
    return json(
      this.status,
      { detail: this.detail },
      {
        // A conflict repeats itself however often it is sent.
        ...(this.status === 409 ? { headers: { "x-should-retry": "false" } } : {}),
        ...(this.audit === undefined ? {} : { audit: this.audit })
      }
    )
  }
}

export const refused = (status: number, detail: string, audit?: Audit): Refused =>
  new Refused({ status, detail, ...(audit === undefined ? {} : { audit }) })

export const malformedPath: Reply = json(400, { detail: "The path is not percent-encoded properly" })
