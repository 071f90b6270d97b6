/** From a request to its handler: routes, credentials, bursts, the audit. */
import * as Endpoint from "@tinkex/tinker/wire/Endpoint"
import * as Effect from "effect/Effect"
import type * as FaultPlan from "../FaultPlan.ts"
import * as Archive from "./handlers/archive.ts"
import * as Checkpoints from "./handlers/checkpoints.ts"
import * as Later from "./handlers/later.ts"
import * as Records from "./handlers/records.ts"
import * as SessionHandlers from "./handlers/session.ts"
import type { Handler } from "./handlers/session.ts"
import * as Sampling from "./handlers/sampling.ts"
import * as Training from "./handlers/training.ts"
import * as Weights from "./handlers/weights.ts"
import type { Of } from "./fault.ts"
import { anybody } from "./gate.ts"
import { type ApiRequest, json, type Reply } from "./reply.ts"
import type { World } from "./world.ts"

interface Route {
  readonly name: FaultPlan.Request | undefined
  readonly handler: Handler
  /** The handler counts its replies for lost responses itself, where it knows a resubmission from a new request. */
  readonly counted?: boolean
  /** `open`: to anybody; `key`: to a key where everything else wants the token that the key is exchanged for. */
  readonly admits?: "open" | "key"
  /** Of a revision after 0.25. */
  readonly later?: boolean
}

const key = ({ method, path }: Endpoint.Endpoint) => `${method} ${path}`

const fixed = new Map<string, Route>([
  [key(Endpoint.healthz), { name: undefined, handler: SessionHandlers.healthz, admits: "open" }],
  [key(Endpoint.clientConfig), { name: "client_config", handler: SessionHandlers.clientConfig, admits: "key" }],
  [key(Endpoint.dynamicConfig), { name: "dynamic_config", handler: SessionHandlers.dynamicConfig }],
  [key(Endpoint.serverCapabilities), { name: "server_capabilities", handler: SessionHandlers.serverCapabilities }],
  [key(Endpoint.createSession), { name: "create_session", handler: SessionHandlers.createSession }],
  [key(Endpoint.sessionHeartbeat), { name: "session_heartbeat", handler: SessionHandlers.sessionHeartbeat }],
  [key(Endpoint.sessions), { name: "session", handler: SessionHandlers.listSessions }],
  [key(Endpoint.createModel), { name: "create_model", handler: SessionHandlers.createModel, counted: true }],
  [key(Endpoint.getInfo), { name: "get_info", handler: SessionHandlers.getInfo }],
  [key(Endpoint.unloadModel), { name: "unload_model", handler: SessionHandlers.unloadModel, counted: true }],
  [key(Endpoint.forward), { name: "forward", handler: Training.forward, counted: true }],
  [key(Endpoint.forwardBackward), { name: "forward_backward", handler: Training.forwardBackward, counted: true }],
  [key(Endpoint.optimStep), { name: "optim_step", handler: Training.optimStep, counted: true }],
  [key(Endpoint.retrieveFuture), { name: "retrieve_future", handler: Training.retrieveFuture, counted: true }],
  [key(Endpoint.saveWeights), { name: "save_weights", handler: Weights.saveWeights, counted: true }],
  [key(Endpoint.loadWeights), { name: "load_weights", handler: Weights.loadWeights, counted: true }],
  [key(Endpoint.weightsInfo), { name: "weights_info", handler: Weights.weightsInfo }],
  [key(Endpoint.trainingRuns), { name: "training_runs", handler: Checkpoints.trainingRuns }],
  [key(Endpoint.checkpoints), { name: "checkpoints", handler: Checkpoints.checkpoints }],
  [key(Endpoint.telemetry), { name: "telemetry", handler: Records.telemetry }],
  [key(Endpoint.audit), { name: "audit", handler: Records.audit }],
  [key(Endpoint.billingUsage), { name: "billing_usage", handler: Records.billingUsage }],
  [key(Endpoint.authToken), { name: "auth_token", handler: SessionHandlers.authToken, admits: "key" }],
  [
    key(Endpoint.saveWeightsForSampler),
    { name: "save_weights_for_sampler", handler: Weights.saveWeightsForSampler, counted: true }
  ],
  [key(Endpoint.createSamplingSession), { name: "create_sampling_session", handler: Sampling.createSamplingSession }],
  [key(Endpoint.retrieveFutures), { name: "later", handler: Later.retrieveFutures, later: true }],
  [key(Endpoint.cancelFuture), { name: "later", handler: Later.cancelFuture, later: true }],
  [key(Endpoint.joinSamplingSession), { name: "later", handler: Later.joinSamplingSession, later: true }],
  [key(Endpoint.copyWeights), { name: "later", handler: Later.copyWeights, later: true }],
  ["POST /api/v1/save_weights_external", { name: "later", handler: Weights.saveWeightsExternal, later: true }],
  [key(Endpoint.storageUsage), { name: "later", handler: Later.currentCheckpoints, later: true }],
  [key(Endpoint.asample), { name: "asample", handler: Sampling.asample, counted: true }]
])

const runs = "^/api/v1/training_runs/([^/]+)"

const download: Handler = (world, request, [id = ""]) => Effect.sync(() => world.downloads.serve(request, id))

const patterns: ReadonlyArray<readonly [method: string, pattern: RegExp, route: Route]> = [
  ["GET", /^\/files\/([^/]+)$/, { name: "download", handler: download, admits: "open" }],
  ["GET", /^\/api\/v1\/sessions\/([^/]+)$/, { name: "session", handler: SessionHandlers.getSession }],
  ["GET", /^\/api\/v1\/sessions\/([^/]+)\/trace_export$/, { name: "trace_export", handler: Archive.traceExport }],
  ["POST", /^\/api\/v1\/sessions\/([^/]+)\/finish$/, { name: "later", handler: Later.finishSession, later: true }],
  [
    "GET",
    new RegExp(`${runs}/checkpoints/external_weights/([^/]+)/external_weights_urls$`),
    { name: "later", handler: Later.externalWeightsUrls, later: true }
  ],
  [
    "PUT",
    /^\/api\/v1\/sessions\/([^/]+)\/project$/,
    { name: "session_project", handler: SessionHandlers.assignProject }
  ],
  ["GET", /^\/api\/v1\/samplers\/([^/]+)$/, { name: "sampler", handler: Sampling.sampler }],
  ["GET", new RegExp(`${runs}$`), { name: "training_run", handler: Checkpoints.trainingRun }],
  ["GET", new RegExp(`${runs}/checkpoints$`), { name: "run_checkpoints", handler: Checkpoints.runCheckpoints }],
  ["DELETE", new RegExp(`${runs}/checkpoints/([^/]+)$`), { name: undefined, handler: Checkpoints.bareCheckpoint }],
  [
    "DELETE",
    new RegExp(`${runs}/checkpoints/([^/]+)/([^/]+)$`),
    { name: "delete_checkpoint", handler: Checkpoints.deleteCheckpoint }
  ],
  [
    "POST",
    new RegExp(`${runs}/checkpoints/([^/]+)/([^/]+)/publish$`),
    { name: "publish_checkpoint", handler: Checkpoints.publish }
  ],
  [
    "DELETE",
    new RegExp(`${runs}/checkpoints/([^/]+)/([^/]+)/publish$`),
    { name: "unpublish_checkpoint", handler: Checkpoints.unpublish }
  ],
  [
    "PUT",
    new RegExp(`${runs}/checkpoints/([^/]+)/([^/]+)/ttl$`),
    { name: "checkpoint_ttl", handler: Checkpoints.checkpointTtl }
  ],
  ["GET", new RegExp(`${runs}/checkpoints/([^/]+)/([^/]+)/archive$`), { name: "archive", handler: Archive.archive }]
]

const burst = (fault: Of<"HttpBurst">): Reply => {
  const headers = fault.retryAfterMillis === undefined ? {} : { "retry-after": `${fault.retryAfterMillis / 1000}` }
  return fault.bare === true
    ? { status: fault.status, contentType: "text/plain", body: "", headers }
    : json(fault.status, { detail: `status ${fault.status} by request of the fault plan` }, { headers })
}

const dropped: Reply = { status: 0, contentType: "text/plain", body: "", dropped: true }

const page = (size: number): Reply => {
  const open = "<html><head><title>502 Bad Gateway</title></head><body>"
  const close = "</body></html>"
  const body = open.padEnd(Math.max(open.length, size - close.length), "The upstream did not answer. ") + close
  return { status: 502, contentType: "text/html", body }
}

/** Bytes that are neither JSON nor protobuf, as many as there were. */
const garbage = (reply: Reply): Uint8Array => {
  const bytes = new Uint8Array(Math.max(8, Buffer.byteLength(reply.body)))
  for (let i = 0; i < bytes.length; i++) bytes[i] = 0xff - ((i * 37) % 0x40)
  return bytes
}

const mangled = (reply: Reply, manner: FaultPlan.Manner, before: Reply | undefined): Reply => {
  switch (manner) {
    case "cut":
      return { ...reply, cut: true }
    case "garbage":
      return { ...reply, body: garbage(reply) }
    case "html":
      return { ...reply, ...page(0) }
    case "huge":
      return { ...reply, ...page(10_000_000) }
    case "empty":
      return { ...reply, body: "" }
    case "mistyped":
      return {
        ...reply,
        contentType: reply.contentType.includes("json") ? "application/x-protobuf" : "application/json"
      }
    case "mixup":
      return before === undefined
        ? { ...reply, body: garbage(reply) }
        : { ...reply, body: before.body, contentType: before.contentType }
  }
}

/** Answers any request; nothing that a client sends makes it fail. */
export const dispatch = (world: World): ((request: ApiRequest) => Effect.Effect<Reply>) => {
  const record = (request: ApiRequest, route: Route | undefined, reply: Reply) => {
    world.records.request({
      at: world.now(),
      endpoint: route?.name ?? `${request.method} ${request.path}`,
      status: reply.dropped === true ? 0 : reply.status,
      ...reply.audit
    })
    return reply
  }

  const run = (request: ApiRequest, route: Route, parameters: ReadonlyArray<string>): Effect.Effect<Reply> => {
    if (route.later === true && !Later.isServed(world)) return Effect.succeed(Later.absent)
    const admitted = route.admits === "open" ? { user: anybody } : world.gate.admit(request, route.admits === "key")
    if (!("user" in admitted)) return Effect.succeed(admitted.reply)
    const caller = { ...request, user: admitted.user }
    const { name } = route
    const refusal = name === undefined ? undefined : world.faults.request(name)
    if (refusal === "drop") return Effect.succeed(dropped)
    if (refusal !== undefined) return Effect.succeed(burst(refusal))
    return route.handler(world, caller, parameters).pipe(
      Effect.map((reply) =>
        name !== undefined && route.counted !== true && world.faults.loses(name, {})
          ? { ...reply, dropped: true }
          : reply
      ),
      Effect.catch((error) => Effect.succeed(error.reply)),
      Effect.catchDefect((defect) =>
        Effect.as(
          Effect.logError("A request could not be handled", defect),
          json(500, { detail: `internal error: ${String(defect)}` })
        )
      ),
      Effect.flatMap((reply) => (name === undefined ? Effect.succeed(reply) : onItsWay(name, reply)))
    )
  }

  /** The newest reply of each kind, for those that are mixed up. */
  const newest = new Map<FaultPlan.Request, Reply>()
  const onItsWay = (name: FaultPlan.Request, reply: Reply): Effect.Effect<Reply> => {
    if (name === "retrieve_future" && reply.finished !== true) return Effect.succeed(reply)
    const { mangle, slow, trickle } = world.faults.reply(name, reply.audit ?? {})
    const before = newest.get(name)
    newest.set(name, reply)
    const spoiled = mangle === undefined ? reply : mangled(reply, mangle.manner, before)
    const paced = trickle === undefined ? spoiled : { ...spoiled, trickleMillis: trickle.millis }
    return slow === undefined ? Effect.succeed(paced) : Effect.delay(Effect.succeed(paced), slow.millis)
  }

  return (request) =>
    Effect.suspend(() => {
      if (world.faults.isCutOff) return Effect.succeed(record(request, undefined, dropped))
      const route = fixed.get(`${request.method} ${request.path}`)
      if (route !== undefined) return Effect.map(run(request, route, []), (reply) => record(request, route, reply))
      for (const [method, pattern, route] of patterns) {
        const match = method === request.method ? pattern.exec(request.path) : null
        if (match === null) continue
        return Effect.map(run(request, route, match.slice(1)), (reply) => record(request, route, reply))
      }
      return Effect.succeed(record(request, undefined, json(404, { detail: "Not Found" })))
    })
}
