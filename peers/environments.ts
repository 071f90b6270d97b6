// The virtual environments of the peers: one for each, with every version pinned, in a folder that git ignores. Making one
// asks the package index once; after that a stamp says that nothing is to be done.
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { homedir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"

const execute = promisify(execFile)

interface Recipe {
  /** Minor versions of Python 3 that the pinned packages have been tried on, best first. */
  readonly pythons: ReadonlyArray<number>
  /** For how long pip may work, in seconds. */
  readonly limit: number
}

const recipes = {
  "tinker-0.25": { pythons: [11, 12, 13], limit: 300 },
  "tinker-0.38": { pythons: [11, 12, 13], limit: 300 },
  "skyrl-0.4": { pythons: [12, 13], limit: 900 },
  "tuft-0.2": { pythons: [11, 12], limit: 1200 }
} satisfies Record<string, Recipe>

export type EnvironmentName = keyof typeof recipes

/** A usable environment, or why there is none. */
export type Environment =
  | { readonly _tag: "Ready"; readonly python: string; readonly bin: string }
  | { readonly _tag: "Missing"; readonly reason: string }

const root = join(import.meta.dirname, ".environments")
const requirementsOf = (name: EnvironmentName) => join(import.meta.dirname, "requirements", `${name}.txt`)
const folderOf = (name: EnvironmentName) => join(root, name)
const digestOf = (name: EnvironmentName) =>
  createHash("sha256")
    .update(readFileSync(requirementsOf(name)))
    .digest("hex")

/** The environment as it stands. Makes nothing and asks nobody. */
export const environment = (name: EnvironmentName): Environment => {
  const bin = join(folderOf(name), "bin")
  const stamp = join(folderOf(name), "stamp")
  return existsSync(stamp) && readFileSync(stamp, "utf8") === digestOf(name)
    ? { _tag: "Ready", python: join(bin, "python"), bin }
    : { _tag: "Missing", reason: `${name} has no environment; "npm run test:peers" makes it` }
}

/** The exact version of a package that an environment pins. */
export const pinned = (name: EnvironmentName, project: string): string =>
  new RegExp(`^${project}==(.+)$`, "m").exec(readFileSync(requirementsOf(name), "utf8"))?.[1] ?? "?"

const interpreter = async (minors: ReadonlyArray<number>): Promise<string | undefined> => {
  const pyenv = process.env["PYENV_ROOT"] ?? join(homedir(), ".pyenv")
  for (const minor of minors) {
    const named = [
      `python3.${minor}`,
      ...globSync(join(pyenv, "versions", `3.${minor}.*`, "bin", "python3")),
      "python3"
    ]
    for (const program of named) {
      const asked = ["-c", "import sys, venv, ensurepip; print(sys.version_info.minor)"]
      const answer = await execute(program, asked, { timeout: 20_000 }).catch(() => undefined)
      if (answer?.stdout.trim() === String(minor)) return program
    }
  }
  return undefined
}

const lastLine = (error: unknown): string => {
  const text = error instanceof Error && "stderr" in error ? String(error.stderr) : String(error)
  return text.trim().split("\n").at(-1) ?? ""
}

/** Makes the environment where it is missing or its requirements have changed. */
export const prepare = async (name: EnvironmentName): Promise<Environment> => {
  const present = environment(name)
  if (present._tag === "Ready") return present
  const { limit, pythons } = recipes[name]
  const program = await interpreter(pythons)
  if (program === undefined) {
    return { _tag: "Missing", reason: `no Python 3.${pythons.join(", 3.")} with venv is installed` }
  }
  const folder = folderOf(name)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(root, { recursive: true })
  try {
    await execute(program, ["-m", "venv", folder], { timeout: 120_000 })
    // the pins name everything, so nothing is resolved; what is not pinned is not there
    const install = [
      "-m",
      "pip",
      "install",
      "--quiet",
      "--no-deps",
      "--no-compile",
      "--requirement",
      requirementsOf(name)
    ]
    const settings = { timeout: limit * 1000, killSignal: "SIGKILL" } as const
    await execute(join(folder, "bin", "python"), install, settings)
  } catch (error) {
    return { _tag: "Missing", reason: `pip could not install ${name}: ${lastLine(error)}` }
  }
  writeFileSync(join(folder, "stamp"), digestOf(name))
  return environment(name)
}
