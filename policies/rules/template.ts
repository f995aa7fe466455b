// Path templates (authorization.md §4.6): `{*}` is one segment, `{**}` any number of them.

const operators = /\{\*\*?\}/

/** Whether a path pattern is a template. */
export function isTemplate(text: string): boolean {
  return operators.test(text)
}

/** Says what is wrong with the braces of a path pattern; undefined when nothing is. */
export function templateProblem(text: string): string | undefined {
  if (!/[{}]/.test(text)) return undefined
  if (!isTemplate(text)) return 'a template has {*} for one segment and {**} for any number of them'
  if (!text.startsWith('/')) return 'a path template starts with a slash'
  if (text.includes('//')) return 'a path template has no empty segment'
  const segments = text.slice(1).split('/')
  const odd = segments.find((it) => /[{}*]/.test(it) && it !== '{*}' && it !== '{**}')
  if (odd !== undefined) {
    return `${JSON.stringify(odd)}: {*} or {**} is a whole segment, and no star stands beside it`
  }
  const deep = segments.indexOf('{**}')
  const later = segments.slice(deep + 1).some((it) => operators.test(it))
  return deep >= 0 && later ? '{**} is the last operator of a template' : undefined
}

const quote = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')

/** `/a/{**}` matches `/a/` and all below; in strict a segment is anything but a slash. */
export function templateExpression(text: string, segment: string): RegExp {
  const source = text
    .split(/(\{\*\*?\})/)
    .map((part) => {
      if (part === '{*}') return `${segment}+`
      return part === '{**}' ? `(?:${segment}*(?:/${segment}*)*)` : quote(part)
    })
    .join('')
  return new RegExp(`^${source}$`)
}

/** What stands before the first operator: every path that matches starts with it. */
export function literalPrefix(text: string): string {
  return text.slice(0, text.search(operators))
}
