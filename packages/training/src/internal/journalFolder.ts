import * as Effect from "effect/Effect"
import { hostname } from "node:os"

/** How this process is named to others. */
export const thisProcess = { host: hostname(), pid: process.pid }

export const make = (_directory: string) => Effect.die("not there yet")
