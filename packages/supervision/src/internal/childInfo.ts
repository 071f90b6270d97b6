import type { ChildInfo } from "../SupervisorRef.ts"
import type { Child } from "./child.ts"

export const statusOf = (child: Child): ChildInfo["status"] => {
  switch (child.status) {
    case "up":
      return "running"
    case "down":
    case "restarting":
      return "restarting"
    case "starting":
      return "starting"
    case "stopping":
      return "stopping"
    default:
      return "stopped"
  }
}

export const infoOf = (child: Child): ChildInfo => ({
  id: child.id,
  kind: child.kind,
  status: statusOf(child),
  restart: child.settings.restart,
  generation: child.generation,
  info: child.extras?.info
})
