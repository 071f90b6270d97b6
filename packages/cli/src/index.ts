export * as ExitCode from "./ExitCode.ts"
export * as Telemetry from "./Telemetry.ts"
