import type * as PlatformError from "effect/PlatformError"
import { LocalFile, TinkerError } from "../TinkerError.ts"

/** The words of the operating system where there are any: those of the platform say what was tried, not what is wrong. */
const saidBy = ({ message, reason }: PlatformError.PlatformError): string =>
  reason.cause instanceof Error ? reason.cause.message : message

/** What a failure on the disk is to the caller: `verb` is what could not be done to `path`. */
export const localFile =
  (operation: string, path: string, verb: string) =>
  (error: PlatformError.PlatformError): TinkerError =>
    new TinkerError({ reason: new LocalFile({ operation, path, problem: `cannot be ${verb}: ${saidBy(error)}` }) })
