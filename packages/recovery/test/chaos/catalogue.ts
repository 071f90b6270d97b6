/**
 * The faults of the catalogue, each as a scenario drawn from a seed. Where a client library cannot suffer a fault inside one
 * process (a full disk, a power loss, another machine, a clock that jumps) it is made at the seam where the library meets it; `seam`
 * says which.
 */
import { type Below, pick } from "./draw.ts"
import { type Place, type Scenario, steps, type Where } from "./Scenario.ts"

export interface ChaosFault {
  readonly id: string
  readonly what: string
  /** How it is noticed. */
  readonly detected: string
  /** What brings the run back. */
  readonly recovered: string
  readonly seam?: string
  /** Whether it may be combined with another one. */
  readonly alone?: true
  readonly scenario: (below: Below) => Scenario
}

const base = (below: Below): Omit<Scenario, "spec"> => ({
  pipelining: below(9),
  every: 2 + below(4),
  keepLast: pick(below, [1, 2, 10]),
  capability: pick(below, ["D0", "D3"]),
  rl: below(5) === 0,
  ...(below(2) === 0 ? { horizon: 0 } : {})
})

type Extra = Partial<Omit<Scenario, "spec">>

/** A fault that a plan of the emulator can say. */
const planned =
  (spec: (below: Below, scenario: Omit<Scenario, "spec">) => string, extra: (below: Below) => Extra = () => ({})) =>
  (below: Below): Scenario => {
    const scenario = { ...base(below), ...extra(below) }
    return { ...scenario, spec: spec(below, scenario) }
  }

const step = (below: Below) => below(steps)
const occurrence = (below: Below) => 1 + below(steps)
/** Steps at which the run saves, the last one not among them. */
const saved = (below: Below, { every }: { readonly every: number }) =>
  every * (1 + below(Math.max(1, Math.ceil(steps / every) - 1)))
const pass = (below: Below) => pick(below, ["forward_backward", "optim_step"])
const sft = { rl: false } satisfies Extra
const paced = () => ({ ...sft, pace: "10 seconds" }) satisfies Extra
/** A moment while a paced run takes its steps, in seconds. */
const moment = (below: Below) => 5 + below(90)

/** A checkpoint is bad, and the run is poisoned while it is the newest; or the final one is bad. */
const badNewest = (damage: string) => (below: Below, scenario: Omit<Scenario, "spec">) => {
  if (below(5) === 0) return `${damage}@${steps}`
  const at = saved(below, scenario)
  return `${damage}@${at},corrupt@${Math.min(steps - 1, at + below(scenario.every))}`
}
/** The only checkpoint may have been the bad one. */
const noneLeft = (): Extra => ({ forGood: ["NoCheckpoint"], mostAttempts: 12 })

const append = (tag: Place["records"][number], when: Place["when"], nth: number): Where => ({
  nth,
  is: (place) => place.what === "append" && place.when === when && place.records.includes(tag)
})
const request = (url: string, when: Place["when"], nth: number): Where => ({
  nth,
  is: (place) => place.what === "request" && place.when === when && place.url.includes(url)
})
/** Any place, counted from the moment at which the run has written down that it failed. */
const inRecovery = (nth: number): Where => {
  let begun = false
  return {
    nth,
    is: (place) => {
      begun ||= place.what === "append" && place.when === "before" && place.records.includes("Incident")
      return begun
    }
  }
}
const anywhere = (nth: number): Where => ({ nth, is: () => true })

const death =
  (where: (below: Below) => Where, spec: (below: Below) => string = () => "") =>
  (below: Below): Scenario => ({
    ...base(below),
    spec: spec(below),
    affliction: { _tag: "Death", at: where(below), unproven: below(3) === 0 }
  })

const maybePoison = (below: Below) => (below(2) === 0 ? `corrupt@${step(below)}` : "")

/** An error that says nothing against the run: it ends, and goes on when it is started again. */
const resumable = (...ends: ReadonlyArray<string>) => ({ ends })

export const catalogue: ReadonlyArray<ChaosFault> = [
  {
    id: "F1",
    what: "the flag rises during a pass",
    detected: "the operation fails in band, or the sweep sees the flag",
    recovered: "freeze, newest verified checkpoint, new attempt, replay",
    scenario: planned(
      (below) => `corrupt@${step(below)}`,
      () => ({ leastIncidents: 1 })
    )
  },
  {
    id: "F2",
    what: "the flag rises between the answer to an optimizer step and the next request",
    detected: "the next request fails in band",
    recovered: "as F1; acknowledged steps beyond the checkpoint are replayed",
    scenario: planned(
      (below) => `poison:optim_step:after@${occurrence(below)}`,
      () => ({ leastIncidents: 1 })
    )
  },
  {
    id: "F3",
    what: "the flag rises during a save",
    detected: "the save fails, or the flag is read before the save counts",
    recovered: "the save is not verified, an older checkpoint is used",
    scenario: planned(
      (below) => `poison:save_weights${pick(below, ["", ":during", ":after"])}@${1 + below(2)}`,
      () => ({ leastIncidents: 1 })
    )
  },
  {
    id: "F4",
    what: "the flag rises while the loop is idle",
    detected: "the sweep, confirmed by a second read",
    recovered: "restored while the loop still waits",
    scenario: planned(
      (below) => `corrupt@${30 + below(200)}s`,
      (below) => ({ ...sft, idle: { step: 1 + below(steps - 1), lasts: "10 minutes" }, leastIncidents: 1 })
    )
  },
  {
    id: "F6",
    what: "the backend fails all that follows and never sets the flag",
    detected: "the failing request",
    recovered: "as F1",
    scenario: planned(
      (below) => `corrupt-unflagged@${step(below)}`,
      () => ({ leastIncidents: 1 })
    )
  },
  {
    id: "F7",
    what: "an operation fails and the service says that its input is to blame",
    detected: "the category of the failure",
    recovered: "no restart: a typed end; started again, the run goes on",
    alone: true,
    scenario: planned(
      (below) => `soft-fail:${pass(below)}:user@${occurrence(below)}`,
      () => ({ ...resumable("Service"), mostAttempts: 2 })
    )
  },
  {
    id: "F8",
    what: "an operation fails on the server, the model lives on",
    detected: "the failure in band",
    recovered: "the attempt is frozen at it; what succeeded behind it is not believed; restore",
    scenario: planned(
      (below) => `soft-fail:${pass(below)}${pick(below, ["", ":unknown"])}@${occurrence(below)}`,
      () => ({ leastIncidents: 1 })
    )
  },
  {
    id: "F9",
    what: "one failure leaves a model that refuses all that follows",
    detected: "the first failure",
    recovered: "as F1",
    scenario: planned(
      (below) => `poison-unflagged:${pass(below)}${pick(below, ["", ":during", ":after"])}@${occurrence(below)}`,
      () => ({ leastIncidents: 1 })
    )
  },
  {
    id: "F11",
    what: "results of pipelined operations arrive out of order",
    detected: "results are committed strictly by sequence",
    recovered: "nothing to recover",
    scenario: planned(
      (below) =>
        `delay:${pass(below)}@${occurrence(below)}=${1 + below(90)}s,delay:${pass(below)}@${occurrence(below)}=${1 + below(30)}s`
    )
  },
  {
    id: "F12",
    what: "a loss that is no number",
    detected: "looked at before the step is committed",
    recovered: "by policy: rolled back, or a typed end (`Diverged`)",
    scenario: planned(
      (below) => `nan:forward_backward@${occurrence(below)}`,
      (below) =>
        below(2) === 0
          ? { ...sft, divergence: { notFinite: "rollBack" }, leastIncidents: 1 }
          : { ...sft, ...resumable("Diverged") }
    )
  },
  {
    id: "F13",
    what: "a loss far above its course for three steps",
    detected: "moving mean and deviation",
    recovered:
      "rolled back to a checkpoint from before, at most `limit` times; retention keeps one, however few are kept",
    scenario: planned(
      (below) => `spike:forward_backward@${5 + below(3)}x3=100`,
      (below) => ({
        ...(below(2) === 0 ? paced() : sft),
        horizon: 0,
        divergence: { spike: { action: "rollBack", warmup: 3 } },
        leastIncidents: 1
      })
    )
  },
  {
    id: "F14",
    what: "a checkpoint loads with a wrong weight",
    detected: "log-probabilities of a stored probe",
    recovered: "quarantined before a step is taken, next older one",
    scenario: planned(badNewest("alter"), () => ({ ...sft, ...noneLeft(), probe: true }))
  },
  {
    id: "F16",
    what: "a restore has to match train flags and rank",
    detected: "the checkpoint's own description, held against the journal",
    recovered: "the new model is made with the right flags",
    scenario: planned(
      (below) => `corrupt@${step(below)}`,
      (below) => ({
        ...sft,
        model: { rank: pick(below, [1, 2, 4]), trainUnembed: below(2) === 0, trainMlp: below(2) === 0 },
        leastIncidents: 1
      })
    )
  },
  {
    id: "F17",
    what: "the future of a pass answers 410",
    detected: "the answer",
    recovered: "never sent again; restore",
    scenario: planned(
      (below) => `${pick(below, ["expire", "forget"])}:forward_backward@${occurrence(below)}`,
      () => ({ leastIncidents: 1 })
    )
  },
  {
    id: "F18",
    what: "the future of an optimizer step answers 410",
    detected: "the answer",
    recovered: "applied or not is unknown: restore",
    scenario: planned(
      (below) => `${pick(below, ["expire", "forget"])}:optim_step@${occurrence(below)}`,
      () => ({ leastIncidents: 1 })
    )
  },
  {
    id: "F19",
    what: "the connection drops after an operation was applied",
    detected: "the transport",
    recovered: "sent again under the same number, applied once",
    scenario: planned(
      (below) =>
        `lose:${pick(below, ["forward_backward", "optim_step", "save_weights", "create_model"])}@${1 + below(3)}`,
      () => ({ mostAttempts: 1 })
    )
  },
  {
    id: "F21",
    what: "a request reaches the server twice",
    detected: "by its number, on the server",
    recovered: "applied once; the second answer is the first",
    seam: "the client's `HttpClient`",
    scenario: (below) => ({
      ...base(below),
      spec: "",
      twice: request(
        pick(below, ["forward_backward", "optim_step", "retrieve_future", "save_weights"]),
        "before",
        occurrence(below)
      )
    })
  },
  {
    id: "F22",
    what: "the answer to another request",
    detected: "its shape or its id",
    recovered: "read again",
    scenario: planned((below) => `mangle:retrieve_future:mixup@${occurrence(below)}`)
  },
  {
    id: "F23",
    what: "an answer that is cut short, garbage, empty or of another type",
    detected: "decoding",
    recovered: "the result is read again, three times at the most; the operation is never repeated",
    scenario: planned(
      (below) =>
        `mangle:retrieve_future:${pick(below, ["cut", "garbage", "html", "huge", "empty", "mistyped"])}@${occurrence(below)}x${1 + below(2)}`,
      () => ({ mostAttempts: 1 })
    )
  },
  {
    id: "F24",
    what: "an answer that trickles byte by byte",
    detected: "the limit of each read",
    recovered: "read again",
    scenario: planned((below) => `trickle:retrieve_future@${occurrence(below)}=${pick(below, ["100ms", "1s", "10s"])}`)
  },
  {
    id: "F26",
    what: "a burst of 5xx",
    detected: "the status",
    recovered: "tried again with jitter, within a budget",
    scenario: planned(
      (below) =>
        `burst:${pick(below, ["500", "502", "503", "504"])}:${pick(below, ["forward_backward", "optim_step", "retrieve_future", "training_run", "save_weights"])}@${occurrence(below)}x${1 + below(6)}`
    )
  },
  {
    id: "F27",
    what: "the service has no room for hours",
    detected: "the queue state of polls",
    recovered: "waits: one alert, no stall, no restart",
    scenario: planned(
      (below) => `pause@${moment(below)}s=${pick(below, ["20m", "20m", "1h", "1h", "1h", "2h", "2h", "6h"])}`,
      () => ({ ...paced(), mostAttempts: 1 })
    )
  },
  {
    id: "F28",
    what: "rate-limited and active by turns",
    detected: "the queue state",
    recovered: "waits; told once",
    scenario: planned(
      (below) => `delay:${pass(below)}@${occurrence(below)}=${1 + below(20)}m:alternating`,
      () => ({ mostAttempts: 1 })
    )
  },
  {
    id: "F29",
    what: "a bare 400 from a proxy",
    detected: "a status without a body",
    recovered: "a few tries, then a restore or a typed end",
    scenario: planned(
      (below) =>
        `bare:400:${pick(below, ["retrieve_future", "forward_backward", "optim_step"])}@${occurrence(below)}x${1 + below(4)}`,
      () => resumable("Service")
    )
  },
  {
    id: "F31",
    what: "the key is refused in the middle of a run",
    detected: "401, with the credential read anew; 403",
    recovered:
      "401: waits until the key is let in again, with one alert, and is restored once; 403, or a wrong key at the start: a typed end, and the next start goes on",
    alone: true,
    scenario: (below) => {
      const scenario = base(below)
      // Before that many requests no step has been sent.
      if (below(2) === 0)
        return { ...scenario, spec: `burst:401:any@${10 + below(40)}x${1 + below(400)}`, mostAttempts: 2 }
      const refusals = 1 + below(4)
      const spec = `burst:${pick(below, ["401", "403"])}:${pick(below, ["forward_backward", "optim_step", "retrieve_future", "create_session", "create_model"])}@${1 + below(4)}x${refusals}`
      return { ...scenario, spec, ...resumable("Service"), mostAttempts: 1 + refusals }
    }
  },
  {
    id: "F32",
    what: "the account is paused for billing",
    detected: "402",
    recovered: "waits and goes on by itself",
    scenario: planned(
      (below) =>
        `burst:402:${pick(below, ["forward_backward", "optim_step", "retrieve_future"])}@${occurrence(below)}x${1 + below(8)}`
    )
  },
  {
    id: "F33",
    what: "nothing gets through for minutes",
    detected: "the transport",
    recovered: "the same numbers are sent afterwards; a session that died meanwhile is restored",
    scenario: planned((below) => `partition@${moment(below)}s=${1 + below(5)}m`, paced)
  },
  {
    id: "F34",
    what: "connections are reset one after another",
    detected: "the transport",
    recovered: "tried again at a bounded rate",
    seam: "the wire: HTTP/1 here, streams of HTTP/2 look the same to the client",
    scenario: planned((below) => `drop:any@${1 + below(60)}x${1 + below(8)}`)
  },
  {
    id: "F36",
    what: "heartbeats fail a few times",
    detected: "counted",
    recovered: "nothing is done",
    scenario: planned(
      (below) => `burst:503:session_heartbeat@${1 + below(4)}x${1 + below(11)}`,
      () => ({ ...paced(), mostAttempts: 1 })
    )
  },
  {
    id: "F37",
    what: "the session is gone",
    detected: "the heartbeat or the next request",
    recovered: "a new session, restore",
    scenario: planned(
      (below) => `lose-session@${step(below)}`,
      () => ({ leastIncidents: 1 })
    )
  },
  {
    id: "F38",
    what: "the process sleeps for half an hour",
    detected: "heartbeats were missed, the session is over",
    recovered: "a new session, restore; an expired lease ends it (F62)",
    seam: "the wire: nothing leaves the process for that long",
    scenario: planned((below) => `partition@${moment(below)}s=${6 + below(30)}m`, paced)
  },
  {
    id: "F39",
    what: "the program blocks its thread for a minute",
    detected: "heartbeats come late",
    recovered: "nothing: the session lives longer than that",
    seam: "the wire: nothing leaves the process for that long",
    scenario: planned(
      (below) => `partition@${moment(below)}s=60s`,
      () => ({ ...paced(), mostAttempts: 1 })
    )
  },
  {
    id: "F41",
    what: "a save is acknowledged and never listed",
    detected: "the listing",
    recovered: "its name is dead, an older one stays; the final one is saved again",
    scenario: planned(badNewest("absent"))
  },
  {
    id: "F42",
    what: "a checkpoint is listed with no size, or a stump",
    detected: "the size, or the load",
    recovered: "never verified, or quarantined",
    scenario: planned((below, scenario) => badNewest(pick(below, ["empty", "truncate"]))(below, scenario), noneLeft)
  },
  {
    id: "F43",
    what: "a load fails on a truncated checkpoint",
    detected: "the load",
    recovered: "quarantined, next older one",
    scenario: planned((below, scenario) => badNewest(pick(below, ["truncate", "missing"]))(below, scenario), noneLeft)
  },
  {
    id: "F44",
    what: "a checkpoint poisons whoever loads it",
    detected: "the flag after the load, or poison before the first committed step",
    recovered: "quarantined after one try, next older one",
    scenario: planned(
      (below, scenario) => badNewest(pick(below, ["poison-load", "poison-step"]))(below, scenario),
      noneLeft
    )
  },
  {
    id: "F46",
    what: "checkpoints would expire during a long pause, and the run is poisoned behind it",
    detected: "times to live are kept in the journal",
    recovered: "renewed while the run waits, or is being restored; a pause counts against no deadline",
    scenario: planned(
      (below) => `pause@${moment(below)}s=${pick(below, ["90m", "2h", "2h", "3h"])},corrupt@${step(below)}`,
      () => ({
        ...paced(),
        ttl: "1 hour",
        leastIncidents: 1,
        mostAttempts: 2
      })
    )
  },
  {
    id: "F47",
    what: "somebody else deletes the chosen checkpoint",
    detected: "the load, or the description",
    recovered: "quarantined, next older one",
    scenario: planned(badNewest("vanish"), noneLeft)
  },
  {
    id: "F48",
    what: "the answer to a save is lost, and the save is there",
    detected: "the transport, or 410",
    recovered: "adopted by its name where all before it is known to have succeeded; no second save",
    scenario: planned(
      (below) =>
        pick(below, [
          `expire:save_weights@${1 + below(2)}`,
          `lose:save_weights@${1 + below(2)}`,
          `delay:save_weights@${1 + below(2)}=${1 + below(10)}m`
        ]),
      // A save that takes minutes longer than the others did is a stall: it is adopted, and the run restored from it.
      () => ({ mostAttempts: 2 })
    )
  },
  {
    id: "F49",
    what: "409: the name of a save exists",
    detected: "the status",
    recovered: "one's own earlier try; names are never used twice",
    scenario: planned((below) => `burst:409:save_weights@${1 + below(3)}x${1 + below(2)}`)
  },
  {
    id: "F51",
    what: "a run is poisoned while its save is under way",
    detected: "in band",
    recovered: "the save is believed only if it was verified before",
    scenario: planned(
      (below, scenario) => {
        const at = saved(below, scenario)
        return `delay:save_weights@1=${1 + below(60)}s,corrupt@${Math.min(steps - 1, at)}`
      },
      () => ({ leastIncidents: 1 })
    )
  },
  {
    id: "F52",
    what: "deletions fail",
    detected: "the status",
    recovered: "tried again behind the next save; they were written down first",
    scenario: planned(
      (below) => `burst:${pick(below, ["500", "503"])}:delete_checkpoint@1x${1 + below(12)}`,
      () => ({ mostAttempts: 1, keepLast: 1, horizon: 0, every: 2 })
    )
  },
  {
    id: "F53",
    what: "the flag rises late, and newer checkpoints may hold the damage",
    detected: "the sweep, with the time at which the run was last seen well",
    recovered: "what was saved after it is tried last",
    scenario: planned(
      (below) => `corrupt@${moment(below)}s`,
      () => ({ ...paced(), leastIncidents: 1 })
    )
  },
  {
    id: "F54",
    what: "killed between the answer to a save and its record",
    detected: "the journal, at the next start",
    recovered: "the checkpoint is adopted by its name",
    scenario: death((below) => append("Verified", pick(below, ["before", "after"]), 1 + below(3)))
  },
  {
    id: "F56",
    what: "killed behind a request, before its answer",
    detected: "the journal has the intent",
    recovered: "D3: attached again, the same numbers; else restored",
    scenario: death((below) =>
      below(2) === 0
        ? append("Step", "after", occurrence(below))
        : request(
            pick(below, ["forward_backward", "optim_step", "save_weights"]),
            pick(below, ["before", "after"]),
            occurrence(below)
          )
    )
  },
  {
    id: "F57",
    what: "what was known of the progress is older than the server",
    detected: "commits are lazy: after a power loss fewer are known",
    recovered: "the journal's intents decide; what is not known to be committed is not believed",
    seam: "the journal's store: what was not flushed is gone",
    scenario: death((below) => anywhere(20 + below(120)))
  },
  {
    id: "F58",
    what: "the tail of the journal is torn, zero-filled or garbage",
    detected: "length and checksum of each record",
    recovered: "cut at the last whole record",
    seam: "the bytes of the journal file, made and read by its own code",
    scenario: (below) => ({
      ...base(below),
      spec: maybePoison(below),
      affliction: {
        _tag: "TornTail",
        at: { nth: 1 + below(30), is: (place) => place.what === "append" && place.when === "before" },
        share: below(101),
        filling: pick(below, ["", "\0".repeat(1 + below(64)), "garbage \n", '00000000 12 {"v":1'])
      }
    })
  },
  {
    id: "F59",
    what: "the disk is full",
    detected: "the append fails",
    recovered: "nothing more is sent, typed end; with room again the run goes on",
    seam: "the journal's store",
    scenario: (below) => ({
      ...base(below),
      spec: maybePoison(below),
      affliction: { _tag: "FullDisk", append: 1 + below(16) },
      ends: ["JournalUnwritable"]
    })
  },
  {
    id: "F61",
    what: "two processes, and two observers, see one failure",
    detected: "the lease of the journal; incidents have one id",
    recovered: "one recovers, the other is refused",
    seam: "two processes as two sets of layers over one store",
    scenario: (below) => ({
      ...base(below),
      spec: `corrupt@${step(below)}`,
      policy: { pollInterval: "1 second" },
      affliction: { _tag: "Rival", at: anywhere(10 + below(100)) }
    })
  },
  {
    id: "F62",
    what: "a process stands still past its lease, and wakes",
    detected: "the epoch of each append",
    recovered: "refused (`Fenced`); the one that took over has completed the run",
    seam: "the store's lease; the process stands still where it waits",
    scenario: (below) => ({
      ...base(below),
      spec: maybePoison(below),
      affliction: {
        _tag: "Standstill",
        at:
          below(2) === 0
            ? append("Step", pick(below, ["before", "after"]), occurrence(below))
            : request(pick(below, ["forward_backward", "optim_step", "save_weights"]), "before", occurrence(below))
      }
    })
  },
  {
    id: "F63",
    what: "the wall clock jumps by up to an hour, forwards and back",
    detected: "not at all: durations are measured on the monotonic clock",
    recovered: "nothing but timestamps changes",
    seam: "the `Clock` service of the process",
    scenario: (below) => ({
      ...base(below),
      spec: below(2) === 0 ? "" : `corrupt@${step(below)}`,
      ...paced(),
      jumps: { everyMillis: 20_000 + below(60_000), byMillis: pick(below, [-1, 1]) * (60_000 + below(3_540_000)) }
    })
  },
  {
    id: "F64",
    what: "the program has changed since the run began",
    detected: "digests in the journal's header",
    recovered: "refused with the difference; the old program goes on",
    scenario: (below) => ({
      ...death((below) => anywhere(20 + below(100)))(below),
      otherProgram: true
    })
  },
  {
    id: "F66",
    what: "killed inside a recovery, at any place where it waits",
    detected: "the journal has the incident and the intent of the attempt",
    recovered: "the next process recovers, once; half-made attempts are left behind",
    scenario: death(
      (below) => inRecovery(1 + below(30)),
      (below) => `corrupt@${step(below)}`
    )
  },
  {
    id: "T9",
    what: "the newest checkpoints are all bad (G9)",
    detected: "one load each",
    recovered: "each is tried once and gives its attempt back; the newest good one is used",
    scenario: planned(
      (below) => {
        const kind = () => pick(below, ["truncate", "missing", "poison-load", "vanish"])
        return `${kind()}@8,${kind()}@6,${kind()}@4,corrupt@9`
      },
      () => ({ every: 2, keepLast: 10, mostAttempts: 6, leastIncidents: 1 })
    )
  }
]
