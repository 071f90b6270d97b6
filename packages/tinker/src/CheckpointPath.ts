/** Where a checkpoint is: `tinker://<training run>/weights/<name>`, or `sampler_weights` for one that can only be sampled from. */
export * from "./wire/CheckpointPath.ts"
