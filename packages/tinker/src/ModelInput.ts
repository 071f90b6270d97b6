/** What goes into a model: chunks of text, images or audio. */
export { type Chunk, fromTokens, type ModelInput } from "./wire/Datum.ts"
