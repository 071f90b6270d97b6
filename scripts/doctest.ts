// Checks the programs in our prose. Every `ts` fence of the READMEs and guides must type-check; a fence marked `ts run` is
// also executed, and a trailing `// => text` on a console.log line must be what it prints.
import { execFileSync, spawnSync } from "node:child_process"
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"

interface Program {
  readonly file: string
  readonly origin: string
  readonly run: boolean
  readonly expected: ReadonlyArray<string>
}

const directory = "examples/.doctest"
rmSync(directory, { recursive: true, force: true })
mkdirSync(directory, { recursive: true })

const sources = ["README.md", ...globSync("docs/**/*.md"), ...globSync("packages/*/README.md")].toSorted()
const programs: Array<Program> = []
for (const source of sources) {
  const text = readFileSync(source, "utf8")
  for (const match of text.matchAll(/^```ts( run| ignore)?\n([\s\S]*?)^```$/gm)) {
    if (match[1] === " ignore") continue
    const code = match[2] ?? ""
    const line = text.slice(0, match.index).split("\n").length
    const file = join(directory, `${source.replaceAll(/[^A-Za-z0-9]/g, "-")}-${line}.ts`)
    writeFileSync(file, `${code}\nexport {}\n`)
    programs.push({
      file,
      origin: `${source}:${line}`,
      run: match[1] === " run",
      expected: [...code.matchAll(/\/\/ => (.*)$/gm)].map((found) => (found[1] ?? "").trim())
    })
  }
}

writeFileSync(
  join(directory, "tsconfig.json"),
  JSON.stringify({
    extends: "../../tsconfig.test.json",
    compilerOptions: { noUnusedLocals: false, noUnusedParameters: false, incremental: false, tsBuildInfoFile: null },
    include: ["*.ts"],
    references: []
  })
)
let failed = 0
try {
  execFileSync("node_modules/.bin/tsc", ["-p", directory], { stdio: "pipe", encoding: "utf8" })
} catch (error) {
  failed++
  console.error((error as { readonly stdout: string }).stdout)
}
for (const program of programs.filter((program) => program.run)) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--conditions=@tinkex/source", program.file], {
    encoding: "utf8",
    timeout: 120_000
  })
  const missing = program.expected.filter((text) => !stdout.includes(text))
  if (status === 0 && missing.length === 0) {
    console.log(`ok ${program.origin}`)
  } else {
    failed++
    console.error(`not ok ${program.origin}: exit ${status}, missing ${JSON.stringify(missing)}\n${stdout}${stderr}`)
  }
}
rmSync(directory, { recursive: true, force: true })
const ran = programs.filter((program) => program.run).length
console.log(`${programs.length} programs type-checked, ${ran} run, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
