/** Cuts a stream of bytes into lines at line feeds, without them; a carriage return stays for the JSON parser to skip. */
export const lineSplitter = () => {
  let open: Array<Uint8Array> = []
  return {
    push: (bytes: Uint8Array): ReadonlyArray<Uint8Array> => {
      const lines: Array<Uint8Array> = []
      let from = 0
      for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, from)) {
        lines.push(joined([...open, bytes.subarray(from, at)]))
        open = []
        from = at + 1
      }
      if (from < bytes.length) open.push(bytes.slice(from))
      return lines
    },
    /** What follows the last line feed, if anything does. */
    end: (): Uint8Array | undefined => (open.length === 0 ? undefined : joined(open))
  }
}

const joined = (parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  const [only] = parts
  return parts.length === 1 && only !== undefined ? only : Buffer.concat(parts)
}
