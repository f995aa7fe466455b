// JSON with what JSON.parse hides: a member that stands twice, of which it would keep the last.

export type Members = Readonly<Record<string, unknown>>

/** Whether a parsed value is an object: neither a list nor null. */
export function isMembers(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A string token, or what gives an object or list its shape. */
const token = /"(?:[^"\\]|\\.)*"|[{}[\],:]/gs

/**
 * The name of a member that one object of `text` has twice; undefined when there is none. `text` is JSON that
 * JSON.parse takes.
 */
export function duplicateMember(text: string): string | undefined {
  const open: (Set<string> | undefined)[] = []
  let last = ''
  for (const [found] of text.matchAll(token)) {
    if (found === '{') open.push(new Set())
    else if (found === '[') open.push(undefined)
    else if (found === '}' || found === ']') open.pop()
    else if (found === ':') {
      const name = String(JSON.parse(last))
      const members = open.at(-1)
      if (members?.has(name)) return name
      members?.add(name)
    }
    last = found
  }
  return undefined
}

/** JSON.parse with whole numbers as what was written: a sequence may have more digits than a number keeps. */
export function parseExactJson(text: string): unknown {
  return JSON.parse(text, (_, value: unknown, context?: { readonly source?: string }) => {
    const source = String(context?.source)
    return typeof value === 'number' && /^-?\d+$/.test(source) ? BigInt(source) : value
  })
}
