// String patterns of authorization policies (authorization.md §4.4): exact, prefix, suffix, presence.

export type Pattern =
  | { readonly kind: 'exact' | 'prefix' | 'suffix'; readonly text: string }
  | { readonly kind: 'present' }

/** Says what is wrong with a pattern; undefined when nothing is. */
export function patternProblem(text: string): string | undefined {
  if (text === '') return 'an empty pattern matches nothing'
  const inner = text === '*' ? '' : text.replace(/^\*|\*$/, '')
  if (inner.includes('*')) {
    return `a star inside ${JSON.stringify(text)} would be taken literally; a star stands at the start, at the end, or alone`
  }
  return undefined
}

/** The pattern of a text without problem. */
export function patternOf(text: string): Pattern {
  if (text === '*') return { kind: 'present' }
  if (text.startsWith('*')) return { kind: 'suffix', text: text.slice(1) }
  if (text.endsWith('*')) return { kind: 'prefix', text: text.slice(0, -1) }
  return { kind: 'exact', text }
}

export function matches(pattern: Pattern, value: string): boolean {
  switch (pattern.kind) {
    case 'exact':
      return value === pattern.text
    case 'prefix':
      return value.startsWith(pattern.text)
    case 'suffix':
      return value.endsWith(pattern.text)
    case 'present':
      return value !== ''
  }
}

/** Whether a value matches any of the patterns. */
export type StringTest = (value: string) => boolean

/** A set for what is exact; the others one after the other. */
export function stringTest(patterns: readonly Pattern[]): StringTest {
  const [only] = patterns
  if (only !== undefined && patterns.length === 1) return (value) => matches(only, value)
  const exact = new Set<string>()
  const others: Pattern[] = []
  for (const pattern of patterns) {
    if (pattern.kind === 'exact') exact.add(pattern.text)
    else others.push(pattern)
  }
  return (value) => exact.has(value) || others.some((pattern) => matches(pattern, value))
}
