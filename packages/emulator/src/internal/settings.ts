/** How an emulator is to behave, with every default filled in. */
import type { GateSettings } from "./gate.ts"

export type Api = "0.25" | "0.38"

export interface Settings {
  readonly seed: number
  readonly longPollMillis: number
  readonly sessionTimeoutMillis: number
  readonly retentionMillis: number
  readonly gate: GateSettings
  readonly compute: "model" | "none"
  /** The revision of the API that is served. */
  readonly api: Api
  /** What a poll for a result that is not there yet is answered with. */
  readonly pendingReply: "try_again" | "408"
  /** Results of more bytes are first told by their size, to those who allow it. */
  readonly metadataOnlyAbove: number
  /** Samples that are drawn at the same time; more are refused with 429. */
  readonly samplingCapacity: number
  /** How long archives and traces take to be made. */
  readonly buildMillis: number
  readonly archiveReply: "redirect" | "json"
  /** Names that are served, each with the model that stands behind it. */
  readonly models: ReadonlyMap<string, string>
  /** What a number that was used for another request is answered with. */
  readonly conflicts: "refuse" | "original"
  /** Replaces parts of the reply to `client/config`. */
  readonly clientConfig: Readonly<Record<string, unknown>>
  /** And of the reply to `client/dynamic_config`. */
  readonly dynamicConfig: Readonly<Record<string, unknown>>
}
