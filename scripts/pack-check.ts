// Packs every package the way npm would publish it and asks publint and attw whether a stranger could use the result.
import { execFileSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const out = mkdtempSync(join(tmpdir(), "tinkex-pack-"))
let failed = 0
for (const name of readdirSync("packages").toSorted()) {
  const cwd = join("packages", name)
  const packed = execFileSync("npm", ["pack", "--json", "--pack-destination", out], { cwd, encoding: "utf8" })
  const parsed = JSON.parse(packed)
  const { filename, files } = Array.isArray(parsed) ? parsed[0] : Object.values(parsed)[0]
  const stray = files.filter((file: { readonly path: string }) => /tsbuildinfo|\.test\.|^test\//.test(file.path))
  const tarball = join(out, filename)
  try {
    if (stray.length > 0)
      throw new Error(`ships ${stray.map((file: { readonly path: string }) => file.path).join(", ")}`)
    execFileSync("node_modules/.bin/publint", ["run", tarball, "--strict"], { stdio: "pipe" })
    const manifest = JSON.parse(readFileSync(join(cwd, "package.json"), "utf8"))
    const entries = manifest.bin === undefined ? ["."] : []
    if (entries.length > 0) {
      execFileSync("node_modules/.bin/attw", [tarball, "--profile", "esm-only", "--entrypoints", ...entries], {
        stdio: "pipe"
      })
    }
    console.log(`ok ${manifest.name}: ${files.length} files`)
  } catch (error) {
    failed++
    const { stdout, stderr, message } = error as { stdout?: Buffer; stderr?: Buffer; message: string }
    console.error(`not ok ${name}: ${message}\n${stdout ?? ""}${stderr ?? ""}`)
  }
}
rmSync(out, { recursive: true, force: true })
process.exit(failed === 0 ? 0 : 1)
