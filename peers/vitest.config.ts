import { defineConfig } from "vitest/config"

const conditions = ["@tinkex/source", "module", "node", "development|production"]

// One file at a time: each has a server or a client beside it, and real sockets between them.
export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    name: "peers",
    root: import.meta.dirname,
    include: ["test/**/*.peer.ts"],
    fileParallelism: false,
    testTimeout: 180_000,
    hookTimeout: 300_000
  }
})
