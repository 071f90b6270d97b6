/** What a restore would do, for a person and for a program. */
import * as Option from "effect/Option"
import type { Candidate } from "@tinkex/training/CheckpointSelector"
import type { Plan } from "@tinkex/training/Restore"
import type { Status } from "../JournaledRuns.ts"

const step = (candidate: Candidate) =>
  Option.match(candidate.step, { onNone: () => "step unknown", onSome: (step) => `step ${step}` })

const standing = (candidate: Candidate) =>
  candidate.proven ? "loaded before" : candidate.verified ? "verified" : "unverified"

const line = (candidate: Candidate) => `${candidate.path}  (${step(candidate)}, ${standing(candidate)})`

/** For a person. `status` is that of a journaled run. */
export const lines = (plan: Plan, status?: Status): ReadonlyArray<string> => [
  `run          ${plan.run}`,
  ...(status === undefined ? [] : [`status       ${status}${status === "complete" ? ": nothing to recover" : ""}`]),
  ...Option.toArray(plan.trainingRunId).map((id) => `replaces     ${id}`),
  ...Option.toArray(plan.incident).map((id) => `incident     ${id}`),
  `committed    ${plan.committed} steps`,
  `chosen       ${Option.match(plan.chosen, {
    onNone: () => (plan.fromBase ? "none: it would begin again from the base model" : "none: nothing can be restored"),
    onSome: line
  })}`,
  ...plan.fallbacks.map((candidate) => `fallback     ${line(candidate)}`),
  ...plan.suspect.map((path) => `suspect      ${path}: saved after the run was last seen well, so it is tried last`),
  ...plan.rejected.map(({ candidate, reason }) => `rejected     ${line(candidate)}: ${reason}`),
  `replayed     ${Option.match(plan.replay, {
    onNone: () => "unknown, since the step of the checkpoint is",
    onSome: ({ from, to }) => (to > from ? `steps ${from} to ${to - 1} (${to - from})` : "nothing")
  })}`,
  "Nothing was written."
]

const candidate = (each: Candidate) => ({
  path: each.path,
  step: Option.getOrNull(each.step),
  verified: each.verified,
  proven: each.proven,
  sizeBytes: Option.getOrNull(each.sizeBytes),
  source: each.source
})

/** For a program. */
export const json = (plan: Plan, status?: Status) => ({
  schemaVersion: 1,
  run: plan.run,
  status: status ?? null,
  trainingRunId: Option.getOrNull(plan.trainingRunId),
  incident: Option.getOrNull(plan.incident),
  committed: plan.committed,
  chosen: Option.getOrNull(Option.map(plan.chosen, candidate)),
  fromBase: plan.fromBase,
  fallbacks: plan.fallbacks.map(candidate),
  suspect: plan.suspect,
  rejected: plan.rejected.map((each) => ({ ...candidate(each.candidate), reason: each.reason })),
  replay: Option.getOrNull(plan.replay)
})
