export * as CheckpointStore from "./CheckpointStore.ts"
export * as LanguageModel from "./LanguageModel.ts"
export * as Optimizer from "./Optimizer.ts"
