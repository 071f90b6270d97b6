// Holds docs/reference/requirements.md against the tests: every requirement and every defect has a row, no cell is empty, each row
// names a test or a chapter, and whatever is named is there.
import { existsSync, readFileSync } from "node:fs"

const page = "docs/reference/requirements.md"
const range = (letter: string, from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, i) => `${letter}${from + i}`)
const wanted = [...range("R", 1, 71), ...range("R", 78, 82), ...range("D", 1, 70)]

const problems: Array<string> = []
const rows = new Map<string, ReadonlyArray<string>>()
for (const line of readFileSync(page, "utf8").split("\n")) {
  const cells = line
    .split("|")
    .slice(1, -1)
    .map((cell) => cell.trim())
  const id = cells[0] ?? ""
  if (!/^[RD]\d+$/.test(id)) continue
  if (rows.has(id)) problems.push(`${id} stands there twice`)
  rows.set(id, cells)
}

/** A file in backticks, and the titles or headings in quotes behind it. */
const reference = /`([^`\s]+\.(?:test\.ts|md))`((?:,? "[^"]+")*)/g

let named = 0
for (const id of wanted) {
  const cells = rows.get(id)
  if (cells === undefined || cells.length !== 3 || cells.includes("")) {
    problems.push(`${id} has ${cells === undefined ? "no row" : "an empty cell"}`)
    continue
  }
  const references = [...(cells[2] ?? "").matchAll(reference)]
  if (references.length === 0) problems.push(`${id} names no test`)
  for (const [, file = "", titles = ""] of references) {
    const path = file.endsWith(".md") ? file : `packages/${file.replace("/", "/test/")}`
    if (!existsSync(path)) {
      problems.push(`${id}: there is no ${path}`)
      continue
    }
    const text = readFileSync(path, "utf8")
    const quoted = [...titles.matchAll(/"([^"]+)"/g)].map(([, title = ""]) => title)
    if (quoted.length === 0 && path.endsWith(".ts")) problems.push(`${id}: no test of ${path} is named`)
    for (const title of quoted) {
      named++
      if (!text.includes(title)) problems.push(`${id}: ${path} has no "${title}"`)
    }
  }
}

for (const problem of problems) console.error(problem)
const all = [...rows.values()].map((cells) => cells[2] ?? "")
const unmet = all.filter((cell) => /\bnot met\b/i.test(cell)).length
const refused = all.filter((cell) => cell.startsWith("refused")).length
console.log(`${rows.size} rows, ${named} tests and chapters named, ${refused} refused, ${unmet} not met or in part`)
process.exitCode = problems.length === 0 ? 0 : 1
