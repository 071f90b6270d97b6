// A process that answers as a service with one archive does: its address, and behind it bytes without end, as fast as a socket
// takes them. Prints its URL; ends with its standard input.
import { createServer, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"

const size = Number(process.argv[2])
const piece = Buffer.alloc(1024 * 1024)
for (let i = 0; i < piece.length; i++) piece[i] = (i * 2654435761) >>> 13

const pour = (response: ServerResponse) => {
  let left = size
  const more = () => {
    while (left > 0) {
      const next = left < piece.length ? piece.subarray(0, left) : piece
      left -= next.length
      if (!response.write(next)) return void response.once("drain", more)
    }
    response.end()
  }
  more()
}

const server = createServer((request, response) => {
  request.resume()
  const { port } = server.address() as AddressInfo // it listens on a port
  if (request.url === "/file") {
    response.writeHead(200, { "content-length": size, etag: '"1"' })
    pour(response)
  } else if (request.url?.endsWith("/archive") === true) {
    response.writeHead(302, { location: `http://127.0.0.1:${port}/file` }).end()
  } else {
    response.writeHead(200, { "content-type": "application/json" }).end("{}")
  }
}).listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
process.stdin.resume().on("end", () => process.exit(0))
