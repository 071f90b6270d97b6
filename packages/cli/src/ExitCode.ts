/** What the exit code of `tinkex` says, for scripts. */
export const ok = 0
export const failed = 1
export const usage = 2
export const configuration = 3
export const notFound = 4
export const service = 5
export const exhausted = 6
export const interrupted = 130

/** Every code with its meaning, as `--help` prints it. */
export const table: ReadonlyArray<readonly [code: number, meaning: string]> = [
  [ok, "done"],
  [failed, "the run or the check failed"],
  [usage, "wrong command, option, value or data"],
  [configuration, "settings or credentials are missing or refused; a folder or port cannot be used"],
  [notFound, "no such run, model or checkpoint"],
  [service, "the service or the network failed"],
  [exhausted, "recovery was given up"],
  [interrupted, "interrupted; the same command goes on"]
]
