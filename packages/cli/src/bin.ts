#!/usr/bin/env node
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { main } from "./Main.ts"

// Whoever reads our output may stop early (`tinkex run list | head`): that is no failure of ours.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error
  process.exit(0)
})

NodeRuntime.runMain(main(process.argv.slice(2)), { disableErrorReporting: true })
