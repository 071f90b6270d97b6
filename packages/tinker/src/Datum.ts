/** One training example. */
export * from "./wire/Datum.ts"
