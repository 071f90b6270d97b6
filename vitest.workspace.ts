import { defineConfig } from "vitest/config"

const conditions = ["@tinkex/source", "module", "node", "development|production"]

const project = (name: string) => ({
  extends: true as const,
  test: { name, root: `./packages/${name}`, include: ["test/**/*.test.ts"] }
})

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  // No test sleeps; the limit only catches what hangs, on a machine that may be busy.
  test: {
    testTimeout: 60_000,
    hookTimeout: 60_000,
    projects: ["supervision", "tinker", "emulator", "training", "recovery", "cli"].map(project)
  }
})
