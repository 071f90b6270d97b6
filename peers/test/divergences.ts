/**
 * Where the servers that we test against differ from the service as its own client assumes it, and from each other. Each row is
 * asked of each server; a server that answers otherwise than it did is noticed, for better or for worse.
 */
import { Effect } from "effect"
import type { TrainingClient } from "@tinkex/tinker"
import { batch, save } from "./kit.ts"

interface Answer {
  readonly status: number
  readonly json: Readonly<Record<string, unknown>>
  readonly text: string
  readonly location: string | null
}

type Ask = (method: string, path: string, body?: unknown, headers?: Record<string, string>) => Promise<Answer>

/** What the rows ask about: a model that was trained for one step and saved once. */
interface Subject {
  readonly ask: Ask
  readonly modelId: string
  readonly sessionId: string
  /** Number of the last operation. */
  readonly seq: number
  readonly path: string
  readonly metrics: ReadonlyArray<string>
}

interface Row {
  readonly what: string
  /** What the official client expects, as far as that is known. */
  readonly service: string
  readonly skyrl: string
  readonly tuft: string
  readonly look: (subject: Subject) => Promise<string>
}

const status =
  (method: string, path: string, body?: unknown) =>
  async ({ ask }: Subject) =>
    String((await ask(method, path, body)).status)

/** The answer to a poll, by its kind and fields. */
const outcome = async ({ ask }: Subject, submitted: Answer): Promise<string> => {
  if (submitted.status >= 300) return `${submitted.status} at once`
  const result = await ask("POST", "retrieve_future", { request_id: submitted.json["request_id"] })
  return `${submitted.status}, then ${result.status}${"error" in result.json ? " with error" : ""}`
}

const rows: ReadonlyArray<Row> = [
  {
    what: "POST client/dynamic_config",
    service: "200 or 404",
    skyrl: "404",
    tuft: "404",
    look: status("POST", "client/dynamic_config", { sdk_version: "0" })
  },
  { what: "POST auth/token", service: "200", skyrl: "404", tuft: "200", look: status("POST", "auth/token", {}) },
  { what: "GET sessions", service: "200", skyrl: "404", tuft: "200", look: status("GET", "sessions") },
  {
    what: "GET checkpoints of the user",
    service: "200",
    skyrl: "404",
    tuft: "200",
    look: status("GET", "checkpoints")
  },
  { what: "GET audit", service: "200", skyrl: "404", tuft: "404", look: status("GET", "audit?event_type=all") },
  {
    what: "POST sessions/{id}/finish",
    service: "200 since 0.38",
    skyrl: "404",
    tuft: "404",
    look: (subject) => status("POST", `sessions/${subject.sessionId}/finish`, { reason: { type: "success" } })(subject)
  },
  {
    what: "publish, unpublish",
    service: "2xx, 2xx",
    skyrl: "405, 422",
    tuft: "204, 500",
    look: async ({ ask, modelId, path }) => {
      const place = `training_runs/${modelId}/checkpoints/weights/${path.split("/").at(-1)}/publish`
      return `${(await ask("POST", place)).status}, ${(await ask("DELETE", place)).status}`
    }
  },
  {
    what: "a ttl for a checkpoint",
    service: "2xx",
    skyrl: "405",
    tuft: "405",
    look: (subject) =>
      status("PUT", `training_runs/${subject.modelId}/checkpoints/weights/${subject.path.split("/").at(-1)}/ttl`, {
        ttl_seconds: 7200
      })(subject)
  },
  {
    what: "a forward_backward as JSON",
    service: "unknown",
    skyrl: "415",
    tuft: "415",
    look: (subject) =>
      status("POST", "forward_backward", {
        forward_backward_input: { data: [], loss_fn: "cross_entropy" },
        model_id: subject.modelId,
        seq_id: 90
      })(subject)
  },
  {
    what: "a request that is accepted",
    service: "2xx",
    skyrl: "200",
    tuft: "202",
    look: async ({ ask, modelId, seq }) =>
      String(
        (
          await ask("POST", "optim_step", {
            model_id: modelId,
            seq_id: seq + 1,
            adam_params: { learning_rate: 0 },
            type: "optim_step"
          })
        ).status
      )
  },
  {
    what: "a number used again, for the same and for something else",
    service: "the original future, unknown",
    skyrl: "the original, 409",
    tuft: "another, another",
    look: async ({ ask, modelId, seq }) => {
      const send = (learning_rate: number) =>
        ask("POST", "optim_step", {
          model_id: modelId,
          seq_id: seq + 2,
          adam_params: { learning_rate },
          type: "optim_step"
        })
      const first = await send(0)
      const kind = ({ json, status }: Answer) =>
        status >= 300 ? String(status) : json["request_id"] === first.json["request_id"] ? "the original" : "another"
      return `${kind(await send(0))}, ${kind(await send(1e-9))}`
    }
  },
  {
    what: "an unknown future",
    service: "unknown",
    skyrl: "404",
    tuft: "404",
    look: status("POST", "retrieve_future", { request_id: "999999" })
  },
  {
    what: "a save under a name that is taken",
    service: "409",
    skyrl: "409 at once",
    tuft: "202, then 200",
    look: async (subject) =>
      outcome(
        subject,
        await subject.ask("POST", "save_weights", {
          model_id: subject.modelId,
          seq_id: subject.seq + 3,
          path: subject.path.split("/").at(-1),
          overwrite: false,
          type: "save_weights"
        })
      )
  },
  {
    what: "a load that is not a model's first request",
    service: "400",
    skyrl: "400 at once",
    tuft: "202, then 200",
    look: async (subject) =>
      outcome(
        subject,
        await subject.ask("POST", "load_weights", {
          model_id: subject.modelId,
          seq_id: subject.seq + 4,
          path: subject.path,
          optimizer: true,
          type: "load_weights"
        })
      )
  },
  {
    what: "a base model that is not served",
    service: "400",
    skyrl: "200, then 200",
    tuft: "404 at once",
    look: async (subject) =>
      outcome(
        subject,
        await subject.ask("POST", "create_model", {
          session_id: subject.sessionId,
          model_seq_id: 90,
          base_model: "no/such-model",
          lora_config: { rank: 4 },
          type: "create_model"
        })
      )
  },
  {
    what: "a rank that is not served",
    service: "400",
    skyrl: "200, then 400",
    tuft: "202, then 200",
    look: async (subject) =>
      outcome(
        subject,
        await subject.ask("POST", "create_model", {
          session_id: subject.sessionId,
          model_seq_id: 91,
          base_model: "tiny/qwen",
          lora_config: { rank: 64 },
          type: "create_model"
        })
      )
  },
  {
    what: "a heartbeat of a session that nobody knows",
    service: "4xx",
    skyrl: "404",
    tuft: "500",
    look: status("POST", "session_heartbeat", { session_id: "nobody" })
  },
  {
    what: "a key that nobody knows",
    service: "401 or 403",
    skyrl: "200",
    tuft: "403",
    look: async ({ ask }) =>
      String((await ask("GET", "training_runs", undefined, { "x-api-key": "tml-nobody" })).status)
  },
  {
    what: "no key",
    service: "401",
    skyrl: "200",
    tuft: "401",
    look: async ({ ask }) => String((await ask("GET", "training_runs", undefined, { "x-api-key": "" })).status)
  },
  {
    what: "total_count of a page past the end",
    service: "the total",
    skyrl: "0",
    tuft: "the total",
    look: async ({ ask }) => {
      const { json } = await ask("GET", "training_runs?limit=1&offset=10000")
      const cursor = json["cursor"]
      return typeof cursor === "object" && cursor !== null && "total_count" in cursor && cursor.total_count === 0
        ? "0"
        : "the total"
    }
  },
  {
    what: "times of checkpoints",
    service: "with a zone",
    skyrl: "without a zone",
    tuft: "with a zone",
    look: async ({ ask, modelId }) => {
      const { text } = await ask("GET", `training_runs/${modelId}/checkpoints`)
      return /"time":"[^"]+(Z|[+-]\d\d:\d\d)"/.test(text) ? "with a zone" : "without a zone"
    }
  },
  {
    what: "ids of listed checkpoints",
    service: "weights/name",
    skyrl: "name",
    tuft: "name",
    look: async ({ ask, modelId }) => {
      const { text } = await ask("GET", `training_runs/${modelId}/checkpoints`)
      return /"checkpoint_id":"weights\//.test(text) ? "weights/name" : "name"
    }
  },
  {
    what: "a model's id",
    service: "session:train:0",
    skyrl: "model_ and 8 digits",
    tuft: "a uuid",
    look: async ({ modelId }) =>
      /:train:\d+$/.test(modelId)
        ? "session:train:0"
        : /^model_[0-9a-f]{8}$/.test(modelId)
          ? "model_ and 8 digits"
          : "a uuid"
  },
  {
    what: "metrics of a pass",
    service: "loss:sum",
    skyrl: "",
    tuft: "grad_norm:mean loss:sum step:max",
    look: async ({ metrics }) => metrics.toSorted().join(" ")
  },
  {
    what: "corrupted, of a run that is well",
    service: "false",
    skyrl: "false",
    tuft: "false",
    look: async ({ ask, modelId }) => String((await ask("GET", `training_runs/${modelId}`)).json["corrupted"])
  },
  {
    what: "fields of get_info",
    service: "model_data model_id",
    skyrl: "model_data model_id status",
    tuft: "is_lora lora_rank model_data model_id model_name type",
    look: async ({ ask, modelId }) =>
      Object.keys((await ask("POST", "get_info", { model_id: modelId, type: "get_info" })).json)
        .toSorted()
        .join(" ")
  },
  {
    what: "where an archive is",
    service: "302 to https",
    skyrl: "405",
    tuft: "302 to a file",
    look: async (subject) => {
      const place = `training_runs/${subject.modelId}/checkpoints/weights/${subject.path.split("/").at(-1)}/archive`
      const { location, status: code } = await subject.ask("GET", place)
      return location === null
        ? String(code)
        : `${code} to ${location.startsWith("file:") ? "a file" : location.split(":")[0]}`
    }
  }
]

const asking =
  (url: string, key: string): Ask =>
  async (method, path, body, headers = {}) => {
    const response = await fetch(`${url}/api/v1/${path}`, {
      method,
      redirect: "manual",
      headers: { "content-type": "application/json", "x-api-key": key, ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    const text = await response.text()
    // What the server says is what the rows look at; one that reads what is not there sees an absence.
    const json = text.startsWith("{") ? (JSON.parse(text) as Readonly<Record<string, unknown>>) : {}
    return { status: response.status, json, text, location: response.headers.get("location") }
  }

/** What a server does in every row, and what it did when the rows were written. */
export const compare = Effect.fnUntraced(function* (
  server: "skyrl" | "tuft",
  client: TrainingClient.TrainingClient,
  url: string,
  key: string
) {
  const pass = yield* client.forwardBackward(batch(0), { loss: "cross_entropy" })
  yield* (yield* client.optimStep({ learningRate: 0.01 })).result
  const metrics = Object.keys((yield* pass.result).metrics)
  const path = yield* save(client, "subject")
  const { modelId, sessionId } = client
  const subject: Subject = {
    ask: asking(url, key),
    modelId,
    sessionId,
    metrics,
    path,
    seq: (yield* client.nextSeq) - 1
  }
  const seen: Record<string, string> = {}
  for (const { look, what } of rows) seen[what] = yield* Effect.promise(() => look(subject))
  return { seen, known: Object.fromEntries(rows.map((row) => [row.what, row[server]])) }
})
