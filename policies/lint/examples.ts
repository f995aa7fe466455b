// Values that the words of a policy mean: for each pattern a few texts that it matches.
import { addressText, parseBlock } from '../attributes/address.ts'
import { type Mesh, trustDomainsOf } from '../language/mesh.ts'
import { patternOf } from '../rules/pattern.ts'
import { isTemplate } from '../rules/template.ts'

const filler = 'any'

/** Texts that a pattern matches, the plainest first. */
export function examplesOf(text: string, middle = filler): readonly string[] {
  const pattern = patternOf(text)
  switch (pattern.kind) {
    case 'exact':
      return [pattern.text]
    case 'prefix':
      return [`${pattern.text}${middle}`, pattern.text]
    case 'suffix':
      return [`${middle}${pattern.text}`, pattern.text]
    case 'present':
      return [middle]
  }
}

export function pathExamples(text: string): readonly string[] {
  if (isTemplate(text)) return [text.replaceAll('{**}', filler).replaceAll('{*}', filler)]
  const pattern = patternOf(text)
  switch (pattern.kind) {
    case 'exact':
      return [pattern.text]
    case 'prefix':
      return pattern.text.endsWith('/')
        ? [`${pattern.text}${filler}`, pattern.text]
        : [pattern.text, `${pattern.text}${filler}`]
    case 'suffix':
      return pattern.text.startsWith('/')
        ? [pattern.text, `/${filler}${pattern.text}`]
        : [`/${filler}${pattern.text}`, pattern.text]
    case 'present':
      return [`/${filler}`]
  }
}

export function hostExamples(text: string): readonly string[] {
  // what stands behind a colon is a port
  return examplesOf(text, text.endsWith(':*') ? '8080' : filler)
}

const parts = ['ns', filler, 'sa', filler]

/** The beginning of a principal as a whole one: `td/ns/a` becomes `td/ns/a/sa/any`. */
export function completed(prefix: string): string {
  const segments = prefix.split('/')
  const [, ...path] = segments
  if (path.at(-1) === '') path.pop()
  const isUsual = path.every((segment, i) => i % 2 === 1 || segment === parts[i])
  const rest = isUsual ? parts.slice(path.length) : prefix.endsWith('/') ? [filler] : []
  return [segments[0], ...path, ...rest].join('/')
}

function principalTexts(text: string, mesh: Mesh): readonly string[] {
  const pattern = patternOf(text)
  const own = mesh.trustDomain
  switch (pattern.kind) {
    case 'exact':
      return [pattern.text]
    case 'prefix':
      return [completed(pattern.text)]
    case 'suffix':
      return pattern.text.startsWith('/')
        ? [`${own}/ns/${filler}${pattern.text}`, `${own}${pattern.text}`]
        : [`${own}/ns/${filler}/sa/${pattern.text}`, pattern.text, `${own}${pattern.text}`]
    case 'present':
      return [`${own}/ns/${filler}/sa/${filler}`]
  }
}

/** Whole IDs. A trust domain that is written may mean the own one (authorization.md §4.10). */
export function principalExamples(text: string, mesh: Mesh): readonly string[] {
  const written = text.replace(/^spiffe:\/\//, '')
  const texts = principalTexts(written, mesh)
  const own = texts.flatMap((it) =>
    trustDomainsOf(mesh).map((name) => it.replace(/^[^/]*/, () => name)),
  )
  return [...new Set([...texts, ...own])].map((it) => `spiffe://${it}`)
}

/** An address inside of a block, not its first one. */
export function addressExample(text: string): string | undefined {
  const block = parseBlock(text)
  if (block === undefined) return undefined
  const { bits, value, prefix } = block
  const rest = BigInt(bits - prefix)
  const first = (value >> rest) << rest
  return addressText({ bits, value: prefix >= bits - 1 ? value : first + 1n })
}
