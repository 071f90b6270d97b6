/** Header names of the API, in lower case. */
export const apiKey = "x-api-key"
export const idempotencyKey = "x-idempotency-key"
export const requestIteration = "x-tinker-request-iteration"
export const requestType = "x-tinker-request-type"
/** Says that a 429 on a sample will be understood as a wish for a pause. */
export const samplingBackpressure = "x-tinker-sampling-backpressure"
export const retryCount = "x-stainless-retry-count"
export const shouldRetry = "x-should-retry"
export const retryAfterMs = "retry-after-ms"
export const retryAfter = "retry-after"

/** The service token of a Cloudflare Access gateway. */
export const cloudflareId = "cf-access-client-id"
export const cloudflareSecret = "cf-access-client-secret"
/** Of an archive's address. */
export const location = "location"
export const expires = "expires"

export const json = "application/json"
export const protobuf = "application/x-protobuf"
