/** A man in the middle: passes requests on, remembers them, and loses answers on demand. */
import { once } from "node:events"
import { createServer, type IncomingHttpHeaders, request as send } from "node:http"

interface Passed {
  readonly method: string
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  readonly status: number
  readonly answerType: string
  readonly answer: Buffer
  /** The answer was lost on its way back. */
  readonly lost: boolean
}

export interface Proxy extends AsyncDisposable {
  readonly url: string
  readonly passed: ReadonlyArray<Passed>
  /** Loses the answers to the next `count` requests whose path ends so, after the server has given them. */
  readonly lose: (path: string, count: number) => void
  /** Gives this JSON to the next `count` requests whose path ends so, without asking the server; resolves when all have it. */
  readonly answer: (path: string, count: number, json: string) => Promise<void>
  /** Adds to the JSON that the server answers on a path. */
  readonly add: (path: string, fields: Readonly<Record<string, unknown>>) => void
  /** Asks the server for another path than the client did. */
  readonly redirect: (from: string, to: string) => void
}

export const open = async (target: string): Promise<Proxy> => {
  const { hostname, port } = new URL(target)
  const passed: Array<Passed> = []
  let losing = { path: "", count: 0 }
  let adding: { readonly path: string; readonly fields: Readonly<Record<string, unknown>> } | undefined
  let answering = { path: "", count: 0, json: "", done: () => {} }
  let redirected = { from: "", to: "" }
  const server = createServer(async (incoming, outgoing) => {
    const parts: Array<Buffer> = []
    for await (const part of incoming) parts.push(part)
    const body = Buffer.concat(parts)
    const { headers, method = "GET", url: path = "/" } = incoming
    if (answering.count > 0 && path.endsWith(answering.path)) {
      answering = { ...answering, count: answering.count - 1 }
      outgoing.writeHead(200, { "content-type": "application/json" }).end(answering.json)
      return answering.count === 0 ? answering.done() : undefined
    }
    const forward = send(
      { hostname, port, path: path.replace(redirected.from, redirected.to), method, headers },
      async (answer) => {
        const received: Array<Buffer> = []
        for await (const part of answer) received.push(part)
        const lost = losing.count > 0 && path.endsWith(losing.path)
        if (lost) losing = { ...losing, count: losing.count - 1 }
        const status = answer.statusCode ?? 0
        const text = Buffer.concat(received)
        const answerType = answer.headers["content-type"] ?? ""
        passed.push({ method, path, headers, body, status, answerType, answer: text, lost })
        if (lost) return outgoing.socket?.destroy()
        const { connection: _, "content-length": __, "transfer-encoding": ___, ...kept } = answer.headers
        outgoing.writeHead(status, kept)
        if (adding === undefined || !path.endsWith(adding.path)) return outgoing.end(text)
        return outgoing.end(JSON.stringify({ ...JSON.parse(text.toString()), ...adding.fields }))
      }
    )
    forward.on("error", () => outgoing.socket?.destroy())
    forward.end(body)
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("no port")
  return {
    url: `http://127.0.0.1:${address.port}`,
    passed,
    lose: (path, count) => void (losing = { path, count }),
    answer: (path, count, json) =>
      new Promise((done) => {
        answering = { path, count, json, done }
      }),
    add: (path, fields) => void (adding = { path, fields }),
    redirect: (from, to) => void (redirected = { from, to }),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
    }
  }
}
