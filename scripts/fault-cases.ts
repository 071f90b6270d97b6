// Writes docs/reference/chaos.md: each fault of the catalogue with its scenario, and each of T1 to T10 with its tests. With --check
// it only says whether the page is right, and fails when a fault has neither scenario nor test, or a named test is not there.
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { catalogue } from "../packages/recovery/test/chaos/catalogue.ts"

/** The faults that have to be there. */
const wanted =
  "F1 F2 F3 F4 F6 F7 F8 F9 F11 F12 F13 F14 F16 F17 F18 F19 F21 F22 F23 F24 F26 F27 F28 F29 F31 F32 F33 F34 F36 F37 F38 F39 F41 F42 F43 F44 F46 F47 F48 F49 F51 F52 F53 F54 F56 F57 F58 F59 F61 F62 F63 F64 F66"

interface Row {
  readonly id: string
  readonly what: string
  readonly detected: string
  readonly recovered: string
  /** Below `packages/`, and a part of the title. */
  readonly tests: ReadonlyArray<readonly [file: string, title: string]>
}

const monitor = "recovery/test/Monitor.test.ts"
const recovery = "recovery/test/Recovery.test.ts"

/** What happens to a fleet, and not to one run. */
const fleet: ReadonlyArray<Row> = [
  {
    id: "X1",
    what: "pages of the list shift under inserts and deletions",
    detected: "runs that no page has shown",
    recovered: "read one by one; none goes unread for two sweeps",
    tests: [[monitor, "M6: under a list that shifts and pages that fail, no run goes unread for two sweeps"]]
  },
  {
    id: "X2",
    what: "the total of the list is wrong",
    detected: "it is not believed: pages are read until one is short",
    recovered: "nothing to recover",
    tests: [
      [
        "tinker/test/RestClient.test.ts",
        "ends its stream even where the service forgets the offset or promises too many"
      ]
    ]
  },
  {
    id: "X3",
    what: "pages time out",
    detected: "the limit of each read",
    recovered: "single reads in the same sweep",
    tests: [[monitor, "is replaced by single reads in the same sweep"]]
  },
  {
    id: "X4",
    what: "many runs are poisoned at once",
    detected: "the sweep, confirmed page by page",
    recovered: "so many at a time, with fairness",
    tests: [[recovery, "X5: a hundred poisoned runs are recovered, never more than maxConcurrent at once"]]
  },
  {
    id: "X5",
    what: "a run ends while its recovery waits its turn",
    detected: "its scope closes",
    recovered: "the recovery is cancelled",
    tests: [[recovery, "a run whose scope ends while its recovery waits its turn is not restored"]]
  },
  {
    id: "X6",
    what: "the user stops a run during a backoff",
    detected: "the call",
    recovered: "the recovery is cancelled and leaves no model",
    tests: [[recovery, "unwatch between two tries ends the recovery, and no other try is made"]]
  }
]

/** What has to be tested of an implementation, by the protocol that it follows. */
const protocol: ReadonlyArray<readonly [id: string, what: string, tests: Row["tests"]]> = [
  [
    "T1",
    "a process that stops at any place where it waits ends in the state of one that did not",
    [
      ["training/test/CrashPoints.test.ts", "T1, P2: a process that stops anywhere"],
      ["training/test/CrashSweep.test.ts", "P2: a process that dies at any record of its journal"]
    ]
  ],
  [
    "T2",
    "two faults at once",
    [
      ["training/test/Chaos.test.ts", "whatever two things go wrong, the run ends as if nothing had"],
      ["recovery/test/chaos/Chaos.test.ts", "and under two of them"]
    ]
  ],
  [
    "T3",
    "laws of the fold",
    [
      ["training/test/RunState.test.ts", "is total: any records in any order make a state (FS1)"],
      ["training/test/RunState.test.ts", "loses no knowledge with the lazy suffix"],
      ["training/test/Compaction.test.ts", "T3: the fold of a snapshot"]
    ]
  ],
  [
    "T4",
    "a journal cut at every byte",
    [
      ["training/test/Journal.test.ts", "cut at any byte, opens with the records that were whole"],
      ["training/test/Journal.test.ts", "stops at damage in the middle, wherever it is"],
      ["training/test/Compaction.test.ts", "T4: a compacted journal is cut at a torn tail"]
    ]
  ],
  ["T5", "adoption", [["training/test/Adoption.test.ts", "T5: adoption of saves whose answer was lost"]]],
  [
    "T6",
    "retention",
    [
      ["training/test/CheckpointPolicy.test.ts", "leaves a sound one, whatever is hidden in the others"],
      ["training/test/CheckpointPolicy.test.ts", "T6: with flags that rise late"]
    ]
  ],
  [
    "T7",
    "fencing",
    [
      ["training/test/JournalStore.test.ts", "T7: sixteen contenders"],
      ["recovery/test/races.test.ts", "races on one failure each"]
    ]
  ],
  [
    "T8",
    "audit of the wire: what is sent again under a number is the same, and was written down first",
    [
      ["training/test/WriteAhead.test.ts", "RP1, SC1: nothing is sent that is not written down"],
      ["recovery/test/chaos/Chaos.test.ts", "I1 to I6 hold under each fault of the catalogue"]
    ]
  ],
  [
    "T9",
    "the breaker",
    [
      ["training/test/RunState.test.ts", "counts attempts without progress and gives one back"],
      [recovery, "with its ten newest checkpoints bad goes on from the eleventh"],
      ["recovery/test/chaos/Chaos.test.ts", "I1 to I6 hold under each fault of the catalogue"]
    ]
  ],
  [
    "T10",
    "rules that are switched off are noticed",
    [
      ["recovery/test/chaos/Mutants.test.ts", "T10: the suite notices a rule that is switched off"],
      ["training/test/Mutants.test.ts", "RP13"]
    ]
  ]
]

const problems: Array<string> = []
for (const id of wanted.split(" ")) {
  if (!catalogue.some((fault) => fault.id === id)) problems.push(`${id} has no scenario`)
}
for (const [id, tests] of [
  ...fleet.map(({ id, tests }) => [id, tests] as const),
  ...protocol.map(([id, , tests]) => [id, tests] as const)
]) {
  for (const [file, title] of tests) {
    const path = `packages/${file}`
    if (!existsSync(path)) problems.push(`${id}: there is no ${path}`)
    else if (!readFileSync(path, "utf8").includes(title)) problems.push(`${id}: ${path} has no test "${title}"`)
  }
}

const named = (tests: Row["tests"]) =>
  tests.map(([file, title]) => `\`${file.replace("/test/", "/")}\`: ${title}`).join("; ")

const rows = [
  ...catalogue.map(({ detected, id, recovered, seam, what }) => [
    id,
    what,
    detected,
    recovered,
    `scenario \`${id}\`${seam === undefined ? "" : `, made at ${seam}`}`,
    "200"
  ]),
  ...fleet.map(({ detected, id, recovered, tests, what }) => [id, what, detected, recovered, named(tests), "-"])
]

const page = "docs/reference/chaos.md"
const intro = readFileSync(page, "utf8").split("<!-- faults -->", 1)[0] ?? ""
const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>) =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n")

const text = `${intro}<!-- faults -->

## The faults

${table(["fault", "what happens", "how it is noticed", "what brings the run back", "scenario or test", "seeds"], rows)}

## What a resume has to be tested for

${table(
  ["", "what", "tests"],
  protocol.map(([id, what, tests]) => [id, what, named(tests)])
)}
`

const squeeze = (markdown: string): string => markdown.replaceAll(/[ -]+/g, " ")
for (const row of rows) if (row.some((cell) => cell.trim() === "")) problems.push(`${row[0]} has an empty cell`)
for (const problem of problems) console.error(problem)
if (process.argv.includes("--check")) {
  const right = squeeze(readFileSync(page, "utf8")) === squeeze(text)
  if (!right) console.error(`${page} is not up to date: run node --conditions=@tinkex/source scripts/fault-cases.ts`)
  else console.log(`${catalogue.length} faults with a scenario, ${fleet.length} of a fleet with a test`)
  process.exitCode = right && problems.length === 0 ? 0 : 1
} else {
  writeFileSync(page, text)
  process.exitCode = problems.length === 0 ? 0 : 1
}
