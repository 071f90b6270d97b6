// The endpoints of the API, and for each the call that uses it, the test that holds it, the emulator's answer and the foreign
// programs that it was checked against. Writes docs/reference/endpoints.md; with --check it only says whether the page is right,
// and fails where an endpoint of the contract has no row, a test has no such title, a peer no such case, or the emulator no
// answer.
import { globSync, readFileSync, writeFileSync } from "node:fs"
import { Emulator } from "@tinkex/emulator"
import * as Contract from "@tinkex/tinker/wire/Endpoint"
import { Effect } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"

interface Row {
  readonly endpoint: Contract.Endpoint
  readonly call: string
  /** A file below packages/ and the beginning of a title in it. */
  readonly test: readonly [file: string, title: string]
  /** Titles in peers/test: of the official Python SDK against the emulator (P), of our SDK against SkyRL (S) and TuFT (T). */
  readonly peers: ReadonlyArray<readonly ["P" | "S" | "T", title: string]> | string
}

const rest = "emulator/test/SdkRest.test.ts"
const ofRest = "tinker/test/RestClient.test.ts"
const sampling = "tinker/test/SamplingClient.test.ts"
const runs = "reads runs, checkpoints and what they need, as they were made"
const care = "publishes, withdraws, limits, frees and deletes"
const P = (title: string): readonly ["P", string] => ["P", title]
const S = (title: string): readonly ["S", string] => ["S", title]
const T = (title: string): readonly ["T", string] => ["T", title]
const losses = P("computes every loss to the bit as our SDK does, and so do the steps that follow")
const states = P("saves, and loads with the optimizer and without it")
const resumed = S("S2 S3 S4 resumes with the optimizer to the bit, by protobuf both ways, without any metrics")
const trained = T("T1 T2 T3 T4 creates, trains by protobuf, saves and resumes")
const trainedRuns = P("lists and reads training runs, page by page and past the end")
const theirs = P("lists checkpoints of a run and of the user")
const cared = P("publishes, withdraws, limits, frees and deletes a checkpoint")
const filed = P("reads, lists and files its sessions, and exports a trace")
const drawn = P("samples by temperature, seed, top-k, top-p and stop rules")
const twoSegments = S("S8 samples from a path of two segments, and reads the one of three that the list has")
const threeSegments = T("T8 samples from a path of three segments and from weights that are saved nowhere")
const later = P("finds what later revisions of the API brought")

const rows: ReadonlyArray<Row> = [
  {
    endpoint: Contract.clientConfig,
    call: "before the first request of a `Tinker` connection",
    test: ["tinker/test/Tinker.test.ts", "asks for the service's configuration once, then sends"],
    peers: [
      P("reads the server's capabilities"),
      S("S1 shakes hands with a server that has no dynamic config"),
      trained
    ]
  },
  {
    endpoint: Contract.dynamicConfig,
    call: "then, and again while there is a session",
    test: ["tinker/test/Credential.test.ts", "is fetched again as often as the service wants"],
    peers: [P("reads the server's capabilities"), S("S1 shakes hands with a server that has no dynamic config")]
  },
  {
    endpoint: Contract.authToken,
    call: "where the service wants it; renewed in the background",
    test: [
      "tinker/test/Credential.test.ts",
      "is renewed in the background 300 s before it ends, and again a minute after a failure"
    ],
    peers: [P("exchanges its key for a token and knows from it who it is")]
  },
  {
    endpoint: Contract.createSession,
    call: "`ServiceClient.session`",
    test: ["tinker/test/ServiceClient.test.ts", "sends what the session and the model are labelled with"],
    peers: [filed, resumed, trained]
  },
  {
    endpoint: Contract.sessionHeartbeat,
    call: "every 10 s as long as the connection lives",
    test: ["tinker/test/ServiceClient.test.ts", "is kept alive every ten seconds"],
    peers: [S("S13 keeps a model alive by heartbeats; without them it is lost, and the client says so"), trained]
  },
  {
    endpoint: Contract.sessions,
    call: "`RestClient.listSessions`, `streamSessions`",
    test: [rest, "reads sessions and samplers, books on a project, exports a trace"],
    peers: [filed]
  },
  {
    endpoint: Contract.session("{id}"),
    call: "`RestClient.getSession`",
    test: [rest, "reads sessions and samplers, books on a project, exports a trace"],
    peers: [filed]
  },
  {
    endpoint: Contract.sessionProject("{id}"),
    call: "`RestClient.assignSessionProject`",
    test: [rest, "reads sessions and samplers, books on a project, exports a trace"],
    peers: [filed]
  },
  {
    endpoint: Contract.sessionTrace("{id}"),
    call: "`RestClient.exportSessionTrace`",
    test: [ofRest, "waits for the trace of a session, five seconds at a time"],
    peers: [filed]
  },
  {
    endpoint: Contract.healthz,
    call: "`RestClient.health`",
    test: [rest, "reads the bill, the audit log, the capabilities and the health"],
    peers: "none: no call of the official SDK's public surface asks for it"
  },
  {
    endpoint: Contract.serverCapabilities,
    call: "`RestClient.getServerCapabilities`",
    test: [rest, "reads the bill, the audit log, the capabilities and the health"],
    peers: [P("reads the server's capabilities")]
  },
  {
    endpoint: Contract.telemetry,
    call: "`Telemetry`",
    test: ["tinker/test/Telemetry.test.ts", "tells that a session began and ended"],
    peers: "P sends it in the background of every case; no test looks at what it sends"
  },
  {
    endpoint: Contract.billingUsage,
    call: "`RestClient.getBillingUsage`",
    test: [rest, "reads the bill, the audit log, the capabilities and the health"],
    peers: [P("reads the bill and the audit log")]
  },
  {
    endpoint: Contract.audit,
    call: "`RestClient.getAuditLog`",
    test: [rest, "reads the bill, the audit log, the capabilities and the health"],
    peers: [P("reads the bill and the audit log")]
  },
  {
    endpoint: Contract.createModel,
    call: "`ServiceClient.createLoraTrainingClient`",
    test: ["tinker/test/ServiceClient.test.ts", "makes models side by side in one session, each with its own numbers"],
    peers: [P("creates a model and reads what the server says of it"), resumed, trained]
  },
  {
    endpoint: Contract.getInfo,
    call: "`TrainingClient.info`",
    test: ["tinker/test/TrainingClient.test.ts", "is described and unloaded; after that nothing is sent"],
    peers: [
      P("creates a model and reads what the server says of it"),
      S("S1 shakes hands with a server that has no dynamic config")
    ]
  },
  {
    endpoint: Contract.unloadModel,
    call: "`TrainingClient.unload`",
    test: ["tinker/test/TrainingClient.test.ts", "is described and unloaded; after that nothing is sent"],
    peers: [S("recovers a run whose model was lost, to the numbers of a run that nothing happened to")]
  },
  {
    endpoint: Contract.forwardBackward,
    call: "`TrainingClient.forwardBackward`, `forward`, `forwardBackwardCustom`",
    test: ["emulator/test/Sdk.test.ts", "creates a model, trains it, and the loss falls"],
    peers: [losses, resumed, trained]
  },
  {
    endpoint: Contract.forward,
    call: "none: the form of clients before 0.25, which the emulator takes",
    test: ["emulator/test/Emulator.test.ts", "bodies may be zstd, or the JSON of older clients, on either path"],
    peers: "none: clients of 0.25 and later do not send it"
  },
  {
    endpoint: Contract.optimStep,
    call: "`TrainingClient.optimStep`",
    test: ["emulator/test/Sdk.test.ts", "creates a model, trains it, and the loss falls"],
    peers: [losses, S("S6 never steps twice where an answer was lost"), trained]
  },
  {
    endpoint: Contract.saveWeights,
    call: "`TrainingClient.saveState`",
    test: ["emulator/test/Sdk.test.ts", "restores with the optimizer bit for bit"],
    peers: [states, resumed, trained]
  },
  {
    endpoint: Contract.saveWeightsForSampler,
    call: "`TrainingClient.saveWeightsForSampler`, `saveWeightsEphemeral`",
    test: ["emulator/test/SamplingSdk.test.ts", "samples from a trained client's weights"],
    peers: [P("samples from a base model and from weights that are saved nowhere"), twoSegments, threeSegments]
  },
  {
    endpoint: Contract.loadWeights,
    call: "`TrainingClient.loadState`, `ServiceClient.createTrainingClientFromState`",
    test: ["emulator/test/Sdk.test.ts", "restores with the optimizer bit for bit"],
    peers: [states, resumed, trained]
  },
  {
    endpoint: Contract.retrieveFuture,
    call: "`ApiFuture.result`",
    test: ["tinker/test/ApiFuture.test.ts", "polls with the iteration and the type of the request"],
    peers: [losses, S("S18 cuts a poll that hangs and asks again, while the server is paused"), trained]
  },
  {
    endpoint: Contract.weightsInfo,
    call: "`RestClient.weightsInfo`",
    test: [rest, runs],
    peers: [states, S("S14 S15 says of a killed engine that the server is lost, of the restarted one that the run is")]
  },
  {
    endpoint: Contract.trainingRuns,
    call: "`RestClient.listTrainingRuns`, `streamTrainingRuns`, `listRunFlags`",
    test: [rest, runs],
    peers: [
      trainedRuns,
      S("S9 S25 reads times without a zone as UTC, and pages past the end"),
      T("T25 T26 pages past the end, and takes no archive that is not on the web")
    ]
  },
  {
    endpoint: Contract.trainingRun("{run}"),
    call: "`RestClient.getTrainingRun`, `getTrainingRunByPath`",
    test: [rest, runs],
    peers: [
      trainedRuns,
      T("T24 is told of a key that nobody knows, and of a run that is another's, without asking for ever")
    ]
  },
  {
    endpoint: Contract.runCheckpoints("{run}"),
    call: "`RestClient.listCheckpoints`, `getCheckpoint`",
    test: [rest, runs],
    peers: [theirs, twoSegments]
  },
  {
    endpoint: Contract.checkpoints,
    call: "`RestClient.listUserCheckpoints`, `streamUserCheckpoints`",
    test: [rest, runs],
    peers: [theirs]
  },
  {
    endpoint: Contract.deleteCheckpoint("{run}", "{kind}/{name}"),
    call: "`RestClient.deleteCheckpoint`",
    test: [rest, care],
    peers: [cared, S("S27 deletes a checkpoint, which then cannot be loaded")]
  },
  {
    endpoint: Contract.publishCheckpoint("{run}", "{kind}/{name}"),
    call: "`RestClient.publishCheckpoint`",
    test: [rest, care],
    peers: [cared]
  },
  {
    endpoint: Contract.unpublishCheckpoint("{run}", "{kind}/{name}"),
    call: "`RestClient.unpublishCheckpoint`",
    test: [rest, care],
    peers: [cared]
  },
  {
    endpoint: Contract.checkpointTtl("{run}", "{kind}/{name}"),
    call: "`RestClient.setCheckpointTtl`",
    test: [rest, care],
    peers: [cared]
  },
  {
    endpoint: Contract.checkpointArchive("{run}", "{kind}/{name}"),
    call: "`RestClient.getCheckpointArchiveUrl`, `readCheckpointArchive`, `streamCheckpointArchive`, `CheckpointArchive.download`",
    test: [rest, "brings an archive into a folder, whichever way its address comes, after the wait for it"],
    peers: [
      P("downloads an archive: a whole tar.gz of an adapter"),
      T("T25 T26 pages past the end, and takes no archive that is not on the web")
    ]
  },
  {
    endpoint: Contract.sampler("{id}"),
    call: "`RestClient.getSampler`, `SamplingClient.info`",
    test: [rest, "reads sessions and samplers, books on a project, exports a trace"],
    peers: [filed]
  },
  {
    endpoint: Contract.createSamplingSession,
    call: "`ServiceClient.createSamplingClient`",
    test: [sampling, "samples from a base model"],
    peers: [P("samples from a base model and from weights that are saved nowhere"), twoSegments, threeSegments]
  },
  {
    endpoint: Contract.asample,
    call: "`SamplingClient.sample`, `sampleAll`, `computeLogprobs`",
    test: ["emulator/test/SamplingSdk.test.ts", "draws what the same seed drew"],
    peers: [drawn, twoSegments, threeSegments]
  },
  {
    endpoint: Contract.retrieveFutures,
    call: "`SamplingClient`, where the service's configuration wants it (after 0.25)",
    test: ["emulator/test/SamplingSdk.test.ts", "learns of the results of all by one request"],
    peers: [later]
  },
  {
    endpoint: Contract.joinSamplingSession,
    call: "`ServiceClient.createSamplingClient({ handle })`, likewise (after 0.25)",
    test: ["emulator/test/SamplingSdk.test.ts", "learns of the results of all by one request"],
    peers: [later]
  },
  {
    endpoint: Contract.copyWeights,
    call: "`ServiceClient.copyWeights` (after 0.25)",
    test: [rest, "copies checkpoints and says what they take up, where the service knows how"],
    peers: [later]
  },
  {
    endpoint: Contract.storageUsage,
    call: "`RestClient.getStorageUsage` (after 0.25)",
    test: [rest, "copies checkpoints and says what they take up, where the service knows how"],
    peers: [later]
  },
  {
    endpoint: Contract.finishSession("{id}"),
    call: "`ServiceClient.finishSession` (after 0.25)",
    test: [rest, "finishes its session, where the service knows how"],
    peers: [P("ends its session")]
  },
  {
    endpoint: Contract.cancelFuture,
    call: "an abandoned `SamplingClient.sample`, likewise (after 0.25)",
    test: [sampling, "ends at the caller's deadline, and tells a service that wants to know"],
    peers: [later]
  }
]

const suites = { P: "officialSdk.peer.ts", S: "skyrl.peer.ts", T: "tuft.peer.ts" } as const
const problems: Array<string> = []
/** A title stands at the beginning of a quoted text that is handed to a test. */
const wanted = (file: string, title: string) => {
  const quoted = title.replaceAll(/[$()*+./?[\\\]^{|}-]/g, String.raw`\$&`)
  const test = new RegExp(String.raw`(?:\bit(?:\.\w+)*\(|\]\)?\(|\n)\s*["'\`]${quoted}`)
  if (!test.test(readFileSync(file, "utf8"))) problems.push(`${file} has no test "${title}"`)
}

const name = ({ method, path }: Contract.Endpoint) => `${method} ${path}`
for (const [key, value] of Object.entries(Contract)) {
  const endpoint = typeof value === "function" ? value("{a}", "{b}/{c}") : value
  const shape = (path: string) => path.replaceAll(/\{[^}]*\}/g, "*")
  const known = rows.some(
    (row) => row.endpoint.method === endpoint.method && shape(row.endpoint.path) === shape(endpoint.path)
  )
  if (!known) problems.push(`${key} (${name(endpoint)}) has no row`)
}

/** Whether the emulator knows the endpoint: anything but its own "no such route" and "not implemented". */
const answers = Effect.fnUntraced(function* ({ method, path }: Contract.Endpoint) {
  const client = yield* HttpClient.HttpClient
  const { url } = yield* Emulator
  const address = url + path.replaceAll("{kind}", "weights").replaceAll(/\{[^}]*\}/g, "x")
  const request = HttpClientRequest.make(method)(address, { headers: { "x-api-key": "tml-x" } })
  const response = yield* client.execute(request)
  const text = yield* response.text
  return response.status !== 501 && !(response.status === 404 && /"Not Found"/.test(text))
})

const lines: Array<string> = []
const known = await Effect.runPromise(
  Effect.forEach(rows, ({ endpoint }) => answers(endpoint)).pipe(
    Effect.provide(Emulator.layerHttpClient({ api: "0.38", tokenExchange: false })),
    Effect.scoped
  )
)
for (const [index, row] of rows.entries()) {
  const [file, title] = row.test
  wanted(`packages/${file}`, title)
  const peers =
    typeof row.peers === "string"
      ? row.peers
      : row.peers
          .map(([suite, title]) => {
            wanted(`peers/test/${suites[suite]}`, title)
            return `${suite}: ${title}`
          })
          .join("; ")
  // The exchange of tokens is off in this emulator; its test turns it on.
  const emulator = known[index] === true || row.endpoint === Contract.authToken ? "yes" : ""
  const cells = [
    `\`${row.endpoint.method}\``,
    `\`${row.endpoint.path}\``,
    row.call,
    emulator,
    `\`${file}\`: ${title}`,
    peers
  ]
  if (cells.some((cell) => cell.trim() === "")) problems.push(`${name(row.endpoint)} has an empty cell`)
  lines.push(`| ${cells.join(" | ")} |`)
}

const text = `# Endpoints

Every endpoint of the API, the call of \`@tinkex/tinker\` that uses it, and what it was tested with. The emulator was asked for
each when this page was made. Tests are files below \`packages/\`. Peers are programs that are not ours (\`npm run test:peers\`):
**P** is the official Python SDK, 0.25 and 0.38, against the emulator; **S** is our SDK against SkyRL's server, **T** against
TuFT. \`node scripts/endpoints.ts\` writes the page, and fails where a cell would be empty or a test does not exist.

| method | path | call | emulator | test | checked against |
| --- | --- | --- | --- | --- | --- |
${lines.join("\n")}

## What is not there

Later revisions of the API (seen up to 0.38 of the official client) have more than this. What is known of it and is left out:

| what | why, and what to do instead |
| --- | --- |
| \`POST create_custom_loss\`, losses that the service computes | it wants the loss as PyTorch's tracer writes it down, for which there is nothing here; \`forwardBackwardCustom\` takes any function, for the price of a forward pass |
| \`POST save_weights_external\`, \`GET …/external_weights_urls\` | exports in other formats; \`CheckpointArchive.download\` brings the adapter in PEFT's. Such checkpoints of others are listed as \`external\`; they are neither loaded nor deleted by their path |
| \`POST sessions/search\` | \`RestClient.listSessions\` lists one's own |
| \`GET\`, \`DELETE auth/apikey/me\` | keys are managed by the official command line; \`RestClient.whoami\` reads the access token |
| links to the web console | no part of the API |

What such a service says beyond the contract is passed over: unknown fields, settings, queue states, and types of checkpoints and usage.
A number or a flag of another type than the contract's is still an error.
`

const page = "docs/reference/endpoints.md"
const squeeze = (markdown: string): string => markdown.replaceAll(/[ -]+/g, " ")
for (const problem of problems) console.error(problem)
if (process.argv.includes("--check")) {
  const right = globSync(page).length === 1 && squeeze(readFileSync(page, "utf8")) === squeeze(text)
  if (!right) console.error(`${page} is not up to date: run node scripts/endpoints.ts`)
  else console.log(`${rows.length} endpoints, each with a call, a test and a peer`)
  process.exitCode = right && problems.length === 0 ? 0 : 1
} else {
  writeFileSync(page, text)
  process.exitCode = problems.length === 0 ? 0 : 1
}
