/** Files behind signed URLs: archives and traces, for whoever has the URL, while it lasts. */
import { createHash } from "node:crypto"
import type { Gate } from "./gate.ts"
import { type ApiRequest, refused, type Reply } from "./reply.ts"

export interface File {
  readonly bytes: Uint8Array
  readonly contentType: string
}

/** Files that are kept at most; the one that was made first goes first. */
const kept = 64

const parseRange = (header: string | undefined, size: number): readonly [from: number, to: number] | "all" | "none" => {
  const match = header === undefined ? null : /^bytes=(\d*)-(\d*)$/.exec(header.trim())
  if (match === null || (match[1] === "" && match[2] === "")) return "all"
  const from = match[1] === "" ? Math.max(0, size - Number(match[2])) : Number(match[1])
  const to = match[1] === "" || match[2] === "" ? size - 1 : Math.min(Number(match[2]), size - 1)
  if (match[1] !== "" && match[2] !== "" && Number(match[2]) < from) return "all"
  return from > to ? "none" : [from, to]
}

export class Downloads {
  private readonly files = new Map<string, File & { readonly etag: string }>()
  private readonly gate: Gate
  private readonly now: () => number

  constructor(gate: Gate, now: () => number) {
    this.gate = gate
    this.now = now
  }

  has(id: string): boolean {
    return this.files.has(id)
  }

  put(id: string, file: File): void {
    const etag = `"${createHash("sha256").update(file.bytes).digest("hex").slice(0, 32)}"`
    this.files.set(id, { ...file, etag })
    for (const oldest of this.files.keys()) {
      if (this.files.size <= kept) break
      this.files.delete(oldest)
    }
  }

  /** An absolute URL for one file, on the host that the request was sent to. */
  sign(request: ApiRequest, id: string, lifetimeMillis: number): { readonly url: string; readonly expires: Date } {
    const seconds = Math.floor((this.now() + lifetimeMillis) / 1000)
    const host = request.header("host") ?? "emulator.local"
    const query = `expires=${seconds}&signature=${this.gate.sign(`${id}|${seconds}`)}`
    return { url: `http://${host}/files/${id}?${query}`, expires: new Date(seconds * 1000) }
  }

  /** Answers a request for a file: all of it, or a range. */
  serve(request: ApiRequest, id: string): Reply {
    const expires = Number(request.query.get("expires"))
    if (!this.gate.isSigned(`${id}|${expires}`, request.query.get("signature") ?? "")) {
      return refused(403, "This URL was not signed here").reply
    }
    if (expires * 1000 <= this.now()) return refused(403, "This URL has expired; ask for another one").reply
    const file = this.files.get(id)
    return file === undefined
      ? refused(404, "The file is not there any more; ask for another URL").reply
      : this.part(request, file)
  }

  private part(request: ApiRequest, { bytes, contentType, etag }: File & { readonly etag: string }): Reply {
    const unchanged = (request.header("if-range") ?? etag) === etag
    const range = unchanged ? parseRange(request.header("range"), bytes.length) : "all"
    const headers = { "accept-ranges": "bytes", etag }
    if (range === "all") return { status: 200, contentType, body: bytes, headers }
    if (range === "none") {
      const beyond = refused(416, `The file has ${bytes.length} bytes`).reply
      return { ...beyond, headers: { ...headers, "content-range": `bytes */${bytes.length}` } }
    }
    const [from, to] = range
    return {
      status: 206,
      contentType,
      body: bytes.subarray(from, to + 1),
      headers: { ...headers, "content-range": `bytes ${from}-${to}/${bytes.length}` }
    }
  }
}
