/** A method and a path below the base URL. */
export interface Endpoint {
  readonly method: "GET" | "POST" | "PUT" | "DELETE"
  readonly path: string
}

const endpoint = (method: Endpoint["method"], path: string): Endpoint => ({ method, path: `/api/v1/${path}` })

export const clientConfig = endpoint("POST", "client/config")
export const dynamicConfig = endpoint("POST", "client/dynamic_config")
export const authToken = endpoint("POST", "auth/token")
export const createSession = endpoint("POST", "create_session")
export const sessionHeartbeat = endpoint("POST", "session_heartbeat")
export const healthz = endpoint("GET", "healthz")
export const serverCapabilities = endpoint("GET", "get_server_capabilities")
export const createModel = endpoint("POST", "create_model")
export const getInfo = endpoint("POST", "get_info")
export const unloadModel = endpoint("POST", "unload_model")
export const forward = endpoint("POST", "forward")
export const forwardBackward = endpoint("POST", "forward_backward")
export const optimStep = endpoint("POST", "optim_step")
export const saveWeights = endpoint("POST", "save_weights")
export const loadWeights = endpoint("POST", "load_weights")
export const saveWeightsForSampler = endpoint("POST", "save_weights_for_sampler")
export const createSamplingSession = endpoint("POST", "create_sampling_session")
export const asample = endpoint("POST", "asample")
export const weightsInfo = endpoint("POST", "weights_info")
export const retrieveFuture = endpoint("POST", "retrieve_future")
export const trainingRuns = endpoint("GET", "training_runs")
export const checkpoints = endpoint("GET", "checkpoints")
export const sessions = endpoint("GET", "sessions")
export const telemetry = endpoint("POST", "telemetry")
export const billingUsage = endpoint("GET", "billing/usage/events")
export const audit = endpoint("GET", "audit")
/** After 0.25. Only where the service's configuration, or the caller, asks for them. */
export const retrieveFutures = endpoint("POST", "retrieve_futures")
export const joinSamplingSession = endpoint("POST", "join_sampling_session")
export const copyWeights = endpoint("POST", "copy_weights")
export const storageUsage = endpoint("GET", "billing/usage/checkpoints/current")
export const cancelFuture = endpoint("POST", "cancel_future")

/** Ids go into paths as they are, without percent-encoding, as the official client sends them. */
export const session = (id: string) => endpoint("GET", `sessions/${id}`)
export const sessionProject = (id: string) => endpoint("PUT", `sessions/${id}/project`)
export const sessionTrace = (id: string) => endpoint("GET", `sessions/${id}/trace_export`)
/** After 0.25. */
export const finishSession = (id: string) => endpoint("POST", `sessions/${id}/finish`)
export const sampler = (id: string) => endpoint("GET", `samplers/${id}`)
export const trainingRun = (id: string) => endpoint("GET", `training_runs/${id}`)
export const runCheckpoints = (id: string) => endpoint("GET", `training_runs/${id}/checkpoints`)
/** `checkpointId` is the two-part form, `weights/<name>`. */
export const deleteCheckpoint = (id: string, checkpointId: string) =>
  endpoint("DELETE", `training_runs/${id}/checkpoints/${checkpointId}`)
export const checkpointTtl = (id: string, checkpointId: string) =>
  endpoint("PUT", `training_runs/${id}/checkpoints/${checkpointId}/ttl`)
export const checkpointArchive = (id: string, checkpointId: string) =>
  endpoint("GET", `training_runs/${id}/checkpoints/${checkpointId}/archive`)
export const publishCheckpoint = (id: string, checkpointId: string) =>
  endpoint("POST", `training_runs/${id}/checkpoints/${checkpointId}/publish`)
export const unpublishCheckpoint = (id: string, checkpointId: string) =>
  endpoint("DELETE", `training_runs/${id}/checkpoints/${checkpointId}/publish`)
