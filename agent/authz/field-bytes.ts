// Header fields judged as bytes, by the rules of fieldsProblem() of the engine: names are tokens, values have no
// control characters.
import { IdentityError } from '../../spiffe/errors.ts'

export const colon = 58
const tab = 9
const space = 32
const del = 127

const token = /^[!#$%&'*+.^_\x60|~0-9A-Za-z-]$/
const isName = Uint8Array.from({ length: 256 }, (_, code) =>
  Number(token.test(String.fromCharCode(code))),
)

function refuse(problem: string): never {
  throw new IdentityError('ERR_BAD_REQUEST', problem, { fields: [{ field: 'headers', problem }] })
}

/** What HTTP/2 says of the request line has a colon before its name. Throws ERR_BAD_REQUEST, with fields. */
export function checkName(bytes: Buffer, from: number, to: number): void {
  if (from === to) refuse('a header without name')
  if (bytes[from] === colon) return
  for (let at = from; at < to; at++)
    if (isName[bytes[at] ?? 0] === 0) refuse('a header name with characters that no name has')
}

/** Whether it is ASCII. Throws ERR_BAD_REQUEST, with fields. */
export function checkValue(bytes: Buffer, from: number, to: number): boolean {
  let isAscii = true
  for (let at = from; at < to; at++) {
    const byte = bytes[at] ?? 0
    if ((byte < space && byte !== tab) || byte === del)
      refuse('a control character in a header value')
    if (byte > del) isAscii = false
  }
  return isAscii
}
