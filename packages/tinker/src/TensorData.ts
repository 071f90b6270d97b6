/** Values with a type and a shape, as losses take and give them. */
export * from "./wire/Tensor.ts"
