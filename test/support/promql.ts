// Which metrics and labels a PromQL expression speaks of. No parser: enough to find every name in it.

export interface Matcher {
  readonly label: string
  readonly operator: string
  readonly value: string
}

export interface Speaks {
  /** metrics with the labels that are asked of each */
  readonly metrics: readonly { readonly name: string; readonly matchers: readonly Matcher[] }[]
  /** labels by which sums are kept apart, and vectors matched */
  readonly groupings: readonly string[]
}

const words = new Set(
  'and or unless by without on ignoring group_left group_right offset bool start end inf nan'.split(
    ' ',
  ),
)

const text = String.raw`"(?:[^"\\]|\\.)*"`
const grouping = /\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g
const metric = new RegExp(
  String.raw`(?<![\w$"])([a-zA-Z_:][\w:]*)\s*(?!\s*[\w(])(?:\{((?:[^{}"]|${text})*)\})?`,
  'g',
)
const matcher = new RegExp(String.raw`(\w+)\s*(=~|!~|!=|=)\s*(${text})`, 'g')

const matchersIn = (braces: string): Matcher[] =>
  [...braces.matchAll(matcher)].map(([, label = '', operator = '', value = '""']) => ({
    ...{ label, operator },
    value: String(JSON.parse(value)),
  }))

export function speaksOf(expression: string): Speaks {
  const groupings = [...expression.matchAll(grouping)].flatMap(([, list = '']) =>
    list.split(',').map((label) => label.trim()),
  )
  // durations, in brackets and after offset, are no names
  const rest = expression
    .replaceAll(grouping, ' ')
    .replaceAll(/\[[^\]]*\]/g, ' ')
    .replaceAll(/\boffset\s+-?\w+/g, ' ')
  const metrics = [...rest.matchAll(metric)]
    .map(([, name = '', braces = '']) => ({ name, matchers: matchersIn(braces) }))
    .filter(({ name }) => !words.has(name.toLowerCase()))
  return { metrics, groupings: groupings.filter((it) => it !== '') }
}
