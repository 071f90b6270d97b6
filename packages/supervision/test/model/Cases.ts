import type { Case } from "./Generator.ts"
import type { SupervisorSpec, WorkerSpec } from "./Model.ts"

const actor = (id: string): WorkerSpec => ({ kind: "actor", id, restart: "permanent", significant: false })

const supervisor = (id: string, options: Partial<SupervisorSpec>): SupervisorSpec => ({
  kind: "supervisor",
  id,
  restart: "permanent",
  significant: false,
  strategy: "one_for_one",
  restarts: 3,
  within: 1000,
  autoShutdown: "never",
  giveUp: "crash",
  children: [],
  ...options
})

const reconfigure = (id: string, restarts: number, within: number) =>
  ({ do: "reconfigure", in: id, restarts, within, strategy: "one_for_one" }) as const

/** Sequences on which a tree and the model once differed. Put here what a failing run prints. */
export const cases: Readonly<Record<string, Case>> = {
  "an intensity that is lowered and raised again still knows what it has granted": {
    tree: supervisor("s1", { restarts: 2, children: [actor("a2")] }),
    scripts: {},
    actions: [
      { do: "crash", id: "a2" },
      { do: "crash", id: "a2" },
      reconfigure("s1", 0, 1000),
      reconfigure("s1", 2, 1000),
      { do: "crash", id: "a2" }
    ]
  },
  "a window that becomes longer does not bring back what it has forgotten": {
    tree: supervisor("s1", { restarts: 2, within: 100, children: [actor("a2")] }),
    scripts: {},
    actions: [
      { do: "crash", id: "a2" },
      { do: "advance", millis: 101 },
      { do: "crash", id: "a2" },
      reconfigure("s1", 2, 1000),
      { do: "crash", id: "a2" },
      { do: "crash", id: "a2" }
    ]
  },
  "the budget of a child begins anew with its supervisor": {
    tree: supervisor("s1", {
      children: [
        supervisor("s2", {
          children: [{ ...actor("a3"), budget: { restarts: 1, within: 1000, exceeded: "stop" } }]
        })
      ]
    }),
    scripts: {},
    actions: [
      { do: "crash", id: "a3" },
      { do: "kill", id: "s2" },
      { do: "crash", id: "a3" },
      { do: "crash", id: "a3" }
    ]
  },
  "what a supervisor was told while it ran ends with it": {
    tree: supervisor("s1", { children: [supervisor("s2", { children: [actor("a3")] })] }),
    scripts: {},
    actions: [reconfigure("s2", 0, 1000), { do: "kill", id: "s2" }, { do: "crash", id: "a3" }]
  },
  "what a dynamic supervisor was told while it ran ends with it": {
    tree: supervisor("s1", { children: [supervisor("d2", { kind: "dynamic" })] }),
    scripts: {},
    actions: [
      reconfigure("d2", 0, 1000),
      { do: "kill", id: "d2" },
      { do: "start", in: "d2", spec: actor("a3") },
      { do: "crash", id: "a3" }
    ]
  },
  "a dynamic supervisor is asked whether there is anything to run after it was told something, too": {
    tree: supervisor("s1", { children: [supervisor("d2", { kind: "dynamic" })] }),
    scripts: {},
    actions: [reconfigure("d2", 3, 1000), { do: "script", id: "d2", outcomes: ["ignore"] }, { do: "kill", id: "d2" }]
  },
  "an attempt that is on its way does nothing once a sibling has brought the child back": {
    tree: supervisor("s1", { strategy: "rest_for_one", children: [actor("a2"), actor("a3")] }),
    scripts: {},
    actions: [
      { do: "script", id: "a3", outcomes: ["fail"] },
      { do: "burst", ids: ["a3", "a2"] }
    ]
  }
}
