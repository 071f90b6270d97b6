// Counts the cases of the OTP, Elixir and Pekko suites that the tests of @tinkex/supervision hold it to. A case is a test whose
// title begins with its id. Writes docs/reference/otp-cases.md; with --check it only says whether the page is right, and
// fails when a case has no test.
import { globSync, readFileSync, writeFileSync } from "node:fs"

const sections: Record<string, string> = {
  "Starting a supervisor":
    "SS-01 SS-02 SS-03 SS-05 SS-06 SS-07 SS-09 SS-10 SS-11 SS-13 SS-14 SS-15 SS-17 SS-18 SS-19 SS-22 SS-23 SS-25 SS-26 SS-27",
  "Stopping a supervisor": "ST-01 ST-02 ST-03 ST-05 ST-06 ST-07 ST-09 ST-10 ST-11 ST-13 ST-14 ST-15 ST-17",
  "Child administration API":
    "AD-01 AD-02 AD-04 AD-05 AD-06 AD-08 AD-09 AD-10 AD-12 AD-13 AD-14 AD-16 AD-17 AD-18 AD-20 AD-21 AD-22 AD-24 AD-25 AD-26 AD-28 AD-29 AD-30",
  "Validation of flags and specs":
    "VA-01 VA-02 VA-03 VA-06 VA-07 VA-09 VA-10 VA-11 VA-13 VA-14 VA-15 VA-17 VA-18 VA-19 VA-21",
  "Restart type: permanent, transient, temporary":
    "RT-01 RT-02 RT-04 RT-05 RT-06 RT-08 RT-09 RT-10 RT-12 RT-13 RT-14 RT-16 RT-17 RT-18",
  Strategies:
    "SG-02 SG-03 SG-04 SG-06 SG-07 SG-08 SG-10 SG-11 SG-12 SG-14 SG-15 SG-16 SG-18 SG-19 SG-20 SG-22 SG-23 SG-24",
  "Restart loop that does not succeed": "RL-01 RL-02 RL-03 RL-05 RL-06 RL-07 RL-09 RL-10",
  "Automatic shutdown (significant children)":
    "AS-01 AS-03 AS-04 AS-05 AS-07 AS-08 AS-09 AS-11 AS-12 AS-13 AS-15 AS-16 AS-17 AS-19 AS-20 AS-21 AS-23",
  "Reconfiguration, scale, reports": "CC-01 CC-02 CC-04 CC-05 CC-06 CC-08 SC-01 SC-02 LG-02",
  DynamicSupervisor:
    "DY-01 DY-02 DY-04 DY-05 DY-06 DY-08 DY-09 DY-10 DY-12 DY-13 DY-14 DY-16 DY-17 DY-18 DY-20 DY-21 DY-22 DY-24 DY-25 DY-26 DY-28 DY-29 DY-30 DY-32 DY-33 DY-34 DY-36 DY-37",
  "PartitionSupervisor, Supervisor, Task.Supervisor":
    "PA-01 PA-03 PA-04 PA-05 PA-07 SU-01 SU-02 SU-04 SU-05 TS-01 TS-03 TS-04 TS-05 TS-07 TS-08 TS-09 TS-11 TS-12 TS-13",
  "gen_server: life cycle and names":
    "GS-01 GS-02 GS-03 GS-05 GS-06 GS-07 GS-09 GS-10 GS-11 GS-14 GS-15 GS-17 GS-18 GS-19",
  "gen_server: calls": "GC-01 GC-02 GC-03 GC-05 GC-06 GC-07 GC-09 GC-10 GC-11 GC-13 GC-14 GC-15 GC-18",
  "gen_server: casts, infos, continue, sleep, inspection":
    "GX-01 GX-02 GX-03 GX-05 GX-06 GX-07 GX-09 GX-10 GX-11 GX-13 GX-14 GX-15 GX-17 GX-18 GX-19 GX-21 GX-22 GX-23",
  "Registry and signals": "RG-02 RG-03 RG-04 RG-06 RG-07 RG-08 RG-10 RG-11 SI-01 SI-03 SI-04 SI-05",
  "Typed restart with backoff, as in Pekko":
    "PK-02 PK-03 PK-04 PK-06 PK-07 PK-08 PK-10 PK-11 PK-12 PK-14 PK-15 PK-16 PK-18 PK-19 PK-20 PK-22 PK-23",
  "Not in any suite, but in the source of OTP 25":
    "XX-01 XX-03 XX-04 XX-05 XX-07 XX-08 XX-09 XX-11 XX-12 XX-13 XX-15 XX-16 XX-17"
}

/** Cases whose test asserts something else than OTP does, and why. */
const deviations: Record<string, string> = {
  "XX-13": "queries answer at once, also while a child starts; only requests that change something wait for their turn"
}

/** Cases that say more than one thing, or on which the suites disagree: which of them is met. */
const readings: Record<string, string> = {
  "GS-18":
    "the error of a clean-up becomes the reason of a clean end, as in the suite; a crash that was there before stays the reason, and the error is an event beside it",
  "PK-20":
    "an init is a first start and is not tried again, as in OTP; what Pekko tries again with a limit or a backoff is set-up that runs after it, which is `started` here",
  "SU-02": "the strategy has OTP's default, one_for_one, where Elixir demands one; the rest is Elixir's"
}

const page = "docs/reference/otp-cases.md"
const tested = new Map<string, Set<string>>()
for (const file of globSync("packages/supervision/test/**/*.test.ts").toSorted()) {
  for (const [, id = ""] of readFileSync(file, "utf8").matchAll(/["'`]([A-Z]{2}-\d\d)\b/g)) {
    tested.set(id, (tested.get(id) ?? new Set()).add(file.slice("packages/supervision/test/".length)))
  }
}

const rows: Array<string> = []
const missing: Array<string> = []
let cases = 0
let otherwise = 0
for (const [section, list] of Object.entries(sections)) {
  const ids = list.split(" ")
  const absent = ids.filter((id) => !tested.has(id))
  const differing = ids.filter((id) => id in deviations)
  const files = [...new Set(ids.flatMap((id) => [...(tested.get(id) ?? [])]))]
  missing.push(...absent)
  cases += ids.length
  otherwise += differing.length
  const met = ids.length - absent.length - differing.length
  rows.push(
    `| ${section} | ${ids.length} | ${met} | ${differing.length} | ${files.map((file) => `\`${file}\``).join(", ")} |`
  )
}

const notes = (reasons: Record<string, string>): string =>
  Object.entries(reasons)
    .map(([id, why]) => `- ${id}: ${why}.`)
    .join("\n")

const text = `# Cases of other suites

What the test suites of Erlang/OTP 25, Elixir 1.14 and Pekko typed hold their supervisors and servers to, and
\`@tinkex/supervision\` too. Every case is a test whose title begins with its id; the files are those below
\`packages/supervision/test\`. \`node scripts/otp-cases.ts\` counts them.

| section | cases | met | deliberately otherwise | tests |
| --- | --- | --- | --- | --- |
${rows.join("\n")}
| all | ${cases} | ${cases - otherwise - missing.length} | ${otherwise} | |

Deliberately otherwise:

${notes(deviations)}

Read in one of several ways:

${notes(readings)}
`

const squeeze = (markdown: string): string => markdown.replaceAll(/[ -]+/g, " ")

if (missing.length > 0) console.error(`no test for ${missing.join(", ")}`)
if (process.argv.includes("--check")) {
  const right = squeeze(readFileSync(page, "utf8")) === squeeze(text)
  if (!right) console.error(`${page} is not up to date: run node scripts/otp-cases.ts`)
  else console.log(`${cases} cases, ${otherwise} deliberately otherwise, ${missing.length} without a test`)
  process.exitCode = right && missing.length === 0 ? 0 : 1
} else {
  writeFileSync(page, text)
}
