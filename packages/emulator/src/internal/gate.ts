/** Who is let in, and as whom: keys, and the tokens that they are exchanged for. */
import { createHmac, timingSafeEqual } from "node:crypto"
import * as Headers from "@tinkex/tinker/wire/Headers"
import { type ApiRequest, refused, type Refused } from "./reply.ts"

/** Everybody is this user unless the keys say otherwise. */
export const anybody = "emulator"

export interface GateSettings {
  /** Keys that are let in, each with its user; `"any"` that looks like one. */
  readonly apiKeys: "any" | ReadonlyMap<string, string>
  /** Keys are good for a token only, and everything else wants the token. */
  readonly tokenExchange: boolean
  readonly tokenMillis: number
}

const base64url = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url")

export class Gate {
  private readonly settings: GateSettings
  private readonly secret: string
  private readonly now: () => number

  constructor(settings: GateSettings, secret: string, now: () => number) {
    this.settings = settings
    this.secret = secret
    this.now = now
  }

  /** A keyed digest, for what is handed out and comes back. */
  sign(text: string): string {
    return createHmac("sha256", this.secret).update(text).digest("base64url")
  }

  isSigned(text: string, signature: string): boolean {
    const [expected, given] = [Buffer.from(this.sign(text)), Buffer.from(signature)]
    return expected.length === given.length && timingSafeEqual(expected, given)
  }

  /** A token for a user, good from now on for as long as tokens are. */
  issue(user: string): string {
    const now = Math.floor(this.now() / 1000)
    const head = base64url({ alg: "HS256", typ: "JWT" })
    const claims = base64url({
      iss: "passport-emulator",
      sub: `tml:user:${user}`,
      org_id: "emulator",
      email: `${user}@emulator.invalid`,
      iat: now,
      exp: now + Math.floor(this.settings.tokenMillis / 1000)
    })
    return `${head}.${claims}.${this.sign(`${head}.${claims}`)}`
  }

  private userOfToken(token: string): { readonly user: string } | Refused {
    const [head = "", claims = "", signature = ""] = token.split(".")
    if (!this.isSigned(`${head}.${claims}`, signature)) return refused(401, "This token was not issued here")
    // The claims are those of `issue`: the signature has just been compared.
    const { exp, sub } = JSON.parse(Buffer.from(claims, "base64url").toString("utf8")) as { exp: number; sub: string }
    return exp * 1000 > this.now()
      ? { user: sub.replace(/^.*:/, "") }
      : refused(401, "This token has expired; exchange the key for another one")
  }

  private userOfKey(key: string): { readonly user: string } | Refused {
    const { apiKeys } = this.settings
    const user = apiKeys === "any" ? anybody : apiKeys.get(key)
    return user === undefined ? refused(403, "This API key is not known here") : { user }
  }

  /** The user of a credential that came with a request, as its own or to open somebody else's checkpoint. */
  userOf(credential: string, keysAreEnough: boolean): { readonly user: string } | Refused {
    const isToken = credential.startsWith("eyJ")
    if (!isToken && !credential.startsWith("tml-")) {
      return refused(401, "X-API-Key is neither an API key (tml-...) nor a token (eyJ...)")
    }
    if (!this.settings.tokenExchange) return this.userOfKey(credential)
    if (isToken) return this.userOfToken(credential)
    return keysAreEnough
      ? this.userOfKey(credential)
      : refused(401, "This server wants a token here; exchange the key for one at auth/token")
  }

  admit(request: ApiRequest, keysAreEnough: boolean): { readonly user: string } | Refused {
    const credential = request.header(Headers.apiKey)
    return credential === undefined || credential === ""
      ? refused(401, "X-API-Key is missing")
      : this.userOf(credential, keysAreEnough)
  }
}
