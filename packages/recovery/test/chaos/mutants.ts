/**
 * Rules of the resume protocol, switched off one at a time: `node mutant.ts NAME` loads patched files in place of the real ones, in
 * a process of its own, so that the sources need no switch. The suite has to notice each of them.
 */
export interface Mutant {
  readonly name: string
  /** Of the resume protocol. */
  readonly rule: string
  readonly patches: ReadonlyArray<{ readonly file: string; readonly find: string; readonly put: string }>
  /** Faults that expose it. */
  readonly faults: ReadonlyArray<string>
}

const training = "packages/training/src/"

export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "no-fencing",
    rule: "RP20: an append of a lower epoch is refused",
    patches: [
      {
        file: `${training}JournalStore.ts`,
        find: "if (epoch !== log.epoch || records[0]?.n !== next) {",
        put: "if (epoch > log.epoch) {"
      }
    ],
    faults: ["F62"]
  },
  {
    name: "record-at-finish",
    rule: "RP3: a checkpoint holds the steps that were submitted before it",
    patches: [
      {
        file: `${training}internal/attempt.ts`,
        find: "yield* reserveSave(recorder, name, step + 1, outcome.state)",
        put: "yield* reserveSave(recorder, name, program.pipelining > 0 ? step : step + 1, outcome.state)"
      }
    ],
    faults: ["F1", "F37"]
  },
  {
    name: "no-clean-prefix",
    rule: "RP11: a save is adopted only behind steps that are known to have succeeded",
    patches: [{ file: `${training}RunState.ts`, find: ".filter(({ binds }) => binds <= last.committed)", put: "" }],
    faults: ["F8", "F17", "F18"]
  },
  {
    name: "lazy-intent",
    rule: "RP1: an operation is durably written down before it is sent",
    patches: [
      {
        file: `${training}internal/attempt.ts`,
        find: "if (last !== undefined) yield* log.append(last)",
        put: "if (last !== undefined) yield* log.appendLazy(last)"
      }
    ],
    faults: ["F56", "F57"]
  },
  {
    name: "believe-410",
    rule: "RP6: an operation whose result cannot be had any more may not have been applied",
    patches: [
      {
        file: `${training}internal/attempt.ts`,
        find: "merge(metrics, metricsIn(yield* resultOf(op)))",
        put: 'merge(metrics, metricsIn(yield* resultOf(op).pipe(Effect.catchIf((error) => error.reason._tag === "PromiseExpired", () => Effect.succeed({})))))'
      }
    ],
    faults: ["F17", "F18"]
  },
  {
    name: "replay-on-d0",
    rule: "RP23: unresolved steps are sent again only where the server keeps their results",
    patches: [
      {
        file: `${training}internal/attempts.ts`,
        find: 'if ((unresolved.length > 0 || openSave !== undefined) && capability !== "D3") return undefined',
        put: ""
      }
    ],
    faults: ["F56", "F57"]
  },
  {
    name: "no-freeze",
    rule: "RP4: the first failure ends the attempt",
    patches: [
      {
        file: `${training}internal/attempt.ts`,
        find: "merge(metrics, metricsIn(yield* resultOf(op)))",
        put: 'merge(metrics, metricsIn(yield* resultOf(op).pipe(Effect.catchIf((error) => error.reason._tag === "RequestFailed", () => Effect.succeed({})))))'
      }
    ],
    faults: ["F8"]
  },
  {
    name: "no-stop-on-refusal",
    rule: "RP2: nothing is sent behind a submission that was refused",
    patches: [
      {
        file: `${training}internal/attempt.ts`,
        find: "if (one.recorder !== undefined) yield* submit(one.recorder)",
        put: "if (one.recorder !== undefined) yield* Effect.ignore(submit(one.recorder))"
      }
    ],
    faults: ["F1", "F31", "F37"]
  },
  {
    name: "trust-the-newest",
    rule: "RP10 and RP27: a save counts when it is listed, and the final one when it was loaded",
    patches: [
      {
        file: `${training}Checkpointer.ts`,
        find: 'if (Option.isNone(row)) return yield* lost(save.name, "the server acknowledged it and does not list it")',
        put: "if (Option.isNone(row)) return yield* log.append({ _tag: 'Verified', path: save.path, name: save.name, attempt, step: save.binds, sizeBytes: null, userState: save.userState })"
      },
      { file: `${training}internal/settings.ts`, find: "rehearse: options.rehearse ?? true", put: "rehearse: false" }
    ],
    faults: ["F41"]
  },
  {
    name: "no-rehearsal",
    rule: "RP27: the final checkpoint is loaded once before the run is complete",
    patches: [
      { file: `${training}internal/settings.ts`, find: "rehearse: options.rehearse ?? true", put: "rehearse: false" }
    ],
    faults: ["F43", "F44"]
  },
  {
    name: "delete-unproven",
    rule: "RP13: an older checkpoint goes only after a newer one was proven",
    patches: [
      {
        file: `${training}Checkpointer.ts`,
        find: "if (before.prove !== undefined && !(yield* proved(before.prove))) return",
        put: "if (before.prove !== undefined) yield* log.append({ _tag: 'Proven', path: before.prove })"
      }
    ],
    faults: ["F42", "F43", "F44"]
  },
  {
    name: "no-hindsight",
    rule: "CP2: a checkpoint that a diverging loss may still reject lets nothing older go",
    patches: [
      {
        file: `${training}Checkpointer.ts`,
        find: "record.step + hindsight <= committed &&",
        put: "hindsight + committed >= 0 &&"
      }
    ],
    faults: ["F13"]
  },
  {
    name: "no-refund",
    rule: "RP17: a checkpoint found bad gives its attempt back",
    patches: [
      {
        file: `${training}RunState.ts`,
        find: "attemptsWithoutProgress: Math.max(0, state.attemptsWithoutProgress - 1)",
        put: "attemptsWithoutProgress: state.attemptsWithoutProgress"
      }
    ],
    faults: ["T9"]
  },
  {
    name: "lost-time",
    rule: "P10: all time is accounted for",
    patches: [
      {
        file: `${training}Goodput.ts`,
        find: "return waste(moved, account.phase, millis)",
        put: "return moved"
      }
    ],
    faults: ["F38", "F27"]
  }
]
