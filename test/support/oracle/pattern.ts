// Patterns of strings (§4.4) and of paths (§4.4, §4.6).
import type { PathReading } from './path.ts'

export const quote = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')

/** The four forms; a star elsewhere than at one end is an ordinary character. */
export function matchesForm(pattern: string, value: string): boolean {
  if (pattern === '*') return value !== ''
  if (pattern.startsWith('*')) return value.endsWith(pattern.slice(1))
  if (pattern.endsWith('*')) return value.startsWith(pattern.slice(0, -1))
  return value === pattern
}

/** RFC 3986 pchar: what a segment may hold where nothing was escaped before. */
const pchar = "[A-Za-z0-9\\-._~%!$&'()*+,;=:@]"

function matchesTemplate(template: string, path: string, character: string): boolean {
  const tail = character === pchar ? `(?:${pchar}|/)*` : '.*'
  const source = template
    .split(/(\{\*\*\}|\{\*\})/)
    .map((part) => (part === '{**}' ? tail : part === '{*}' ? `${character}+` : quote(part)))
    .join('')
  return new RegExp(`^${source}$`, 's').test(path)
}

/** `escapedBefore`: the normalisation of Envoy has escaped what is no pchar (row 55); strict takes any byte but a slash. */
export function matchesPath(
  pattern: string,
  reading: PathReading,
  escapedBefore: boolean,
): boolean {
  const wanted = reading.caseless ? pattern.toLowerCase() : pattern
  const path = reading.caseless ? reading.text.toLowerCase() : reading.text
  if (!wanted.includes('{')) return matchesForm(wanted, path)
  return matchesTemplate(wanted, path, escapedBefore ? '[^/]' : pchar)
}
