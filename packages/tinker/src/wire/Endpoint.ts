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
export const weightsInfo = endpoint("POST", "weights_info")
export const retrieveFuture = endpoint("POST", "retrieve_future")
export const trainingRuns = endpoint("GET", "training_runs")
export const checkpoints = endpoint("GET", "checkpoints")
export const sessions = endpoint("GET", "sessions")

/** Ids go into paths as they are, without percent-encoding, as the official client sends them. */
export const session = (id: string) => endpoint("GET", `sessions/${id}`)
export const trainingRun = (id: string) => endpoint("GET", `training_runs/${id}`)
export const runCheckpoints = (id: string) => endpoint("GET", `training_runs/${id}/checkpoints`)
/** `checkpointId` is the two-part form, `weights/<name>`. */
export const deleteCheckpoint = (id: string, checkpointId: string) =>
  endpoint("DELETE", `training_runs/${id}/checkpoints/${checkpointId}`)
export const checkpointTtl = (id: string, checkpointId: string) =>
  endpoint("PUT", `training_runs/${id}/checkpoints/${checkpointId}/ttl`)
