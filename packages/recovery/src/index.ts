export * as RecoveryError from "./RecoveryError.ts"
export * as RecoveryEvent from "./RecoveryEvent.ts"
export * as RecoveryPolicy from "./RecoveryPolicy.ts"
