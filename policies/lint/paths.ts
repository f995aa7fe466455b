import { patternOf } from '../rules/pattern.ts'
import type { CompiledRule } from '../rules/rule.ts'
import { isTemplate } from '../rules/template.ts'
import type { Change, Draft } from './draft.ts'
import { pathExamples } from './examples.ts'
import { type FieldText, fieldTexts } from './field-texts.ts'
import { type Ground, strangerAt, whomOf } from './ground.ts'
import {
  escapesFrom,
  isAllowed,
  isAllowedBy,
  keepsOut,
  type LintRule,
  letsThrough,
  openPrefix,
  quoted,
  type Suspicion,
  spotIn,
} from './rule.ts'
import { samplesOf } from './samples.ts'

const onPath =
  (path: string): Change =>
  (draft) => ({ ...draft, path })

// a file, or a method of gRPC, has no twin that a server would answer
const hasNoTwin = /\.[A-Za-z]\w*$|^\/[\w.]*\w\.\w+\/\w+$/

/** An example of what is meant, and the same path with or without its last slash. */
function twinOf(text: string): { readonly meant: string; readonly twin: string } | undefined {
  const deep = text.endsWith('/{**}') ? text.slice(0, -'/{**}'.length) : undefined
  const [meant = text] = pathExamples(text)
  if (deep !== undefined) {
    const [twin = ''] = pathExamples(deep)
    return twin === '' ? undefined : { meant, twin }
  }
  const pattern = patternOf(text)
  if (isTemplate(text) || pattern.kind === 'suffix' || pattern.kind === 'present') return undefined
  const isFolder = pattern.text.endsWith('/')
  if (pattern.text.length < 2 || (!isFolder && pattern.kind === 'prefix')) return undefined
  if (!isFolder && hasNoTwin.test(pattern.text)) return undefined
  return { meant, twin: isFolder ? pattern.text.slice(0, -1) : `${pattern.text}/` }
}

const verb = ({ policy }: CompiledRule) =>
  policy.action === 'DENY' ? 'is not denied' : 'is not excepted'

function* slashTwins(ground: Ground): Generator<Suspicion> {
  for (const { rule, field, text, index } of fieldTexts(ground, 'paths', keepsOut)) {
    const found = twinOf(text)
    if (found === undefined) continue
    const { meant, twin } = found
    yield {
      at: spotIn(rule, ...field.path, index),
      says: `${quoted(text)} leaves out ${quoted(twin)}, which most programs take for the same and which ${verb(rule)}`,
      mend: `add ${quoted(twin)} to the list`,
      witnesses: () => escapesFrom(ground, rule, { at: onPath(meant), away: onPath(twin) }),
      shows: isAllowed,
    }
  }
}

function* openPrefixes(ground: Ground): Generator<Suspicion> {
  for (const { rule, field, text, index } of fieldTexts(ground, 'paths', letsThrough)) {
    const prefix = openPrefix(text)
    if (prefix === undefined) continue
    const other = `${prefix}-other`
    const base = strangerAt(whomOf(ground.mesh, rule.policy), ground.mesh)
    const away = onPath(other)
    yield {
      at: spotIn(rule, ...field.path, index),
      says: `${quoted(text)} also takes ${quoted(other)}, which is another place`,
      mend: `write ${quoted(prefix)} and ${quoted(`${prefix}/*`)} instead`,
      witnesses: () =>
        rule.policy.action === 'DENY'
          ? escapesFrom(ground, rule, { at: onPath(`/x${other}`), away })
          : samplesOf(rule, base, { pin: away }),
      shows: rule.policy.action === 'DENY' ? isAllowed : isAllowedBy(rule),
    }
  }
}

interface Form {
  readonly name: string
  readonly write: (path: string) => readonly string[]
}

const slashesOf = (path: string): readonly number[] =>
  [...path.matchAll(/\//g)].map(({ index }) => index)

const secondSlash: Form = {
  name: 'a second slash',
  write: (path) => slashesOf(path).map((at) => `${path.slice(0, at)}/${path.slice(at)}`),
}
const escapedSlash: Form = {
  name: 'an escaped slash',
  // the first one has to stay: without it there is no path
  write: (path) =>
    slashesOf(path).map((at) =>
      at === 0 ? `/%2F${path.slice(1)}` : `${path.slice(0, at)}%2F${path.slice(at + 1)}`,
    ),
}

/** What a path may look like that a program behind the proxy takes for the same. */
const forms: readonly Form[] = [
  secondSlash,
  escapedSlash,
  {
    name: 'another case',
    write: (path) => [path.replace(/(?<=\/)[A-Za-z](?=[^/]*$)/, swapCase)],
  },
  { name: 'a dot at the end', write: (path) => [`${path}.`] },
]

function swapCase(letter: string): string {
  const upper = letter.toUpperCase()
  return upper === letter ? letter.toLowerCase() : upper
}

interface Passing {
  readonly form: Form
  readonly draft: Draft
}

function passing(ground: Ground, it: FieldText, meant: string): readonly Passing[] {
  const firstOf = (form: Form): Passing | undefined => {
    for (const path of form.write(meant)) {
      for (const draft of escapesFrom(ground, it.rule, { at: onPath(meant), away: onPath(path) })) {
        if (isAllowed(ground.ask(draft))) return { form, draft }
      }
    }
    return undefined
  }
  return forms.flatMap((form) => firstOf(form) ?? [])
}

/** Only where slashes are not all decoded and merged: there the first two forms are one with the path. */
function* otherForms(ground: Ground): Generator<Suspicion> {
  const { profile, pathNormalization } = ground.mesh
  if (profile !== 'istio' || pathNormalization === 'decode-and-merge-slashes') return
  for (const it of fieldTexts(ground, 'paths', keepsOut)) {
    const [meant = it.text] = pathExamples(it.text)
    const found = passing(ground, it, meant)
    if (!found.some(({ form }) => form === secondSlash || form === escapedSlash)) continue
    const names = found.map(({ form, draft }) => `${quoted(draft.path)} (${form.name})`).join(', ')
    yield {
      at: spotIn(it.rule, ...it.field.path, it.index),
      says: `${quoted(it.text)} is passed by ${names} at normalisation ${pathNormalization}`,
      witnesses: () => found.map(({ draft }) => draft),
      shows: isAllowed,
    }
  }
}

export const pathRules: readonly LintRule[] = [
  {
    name: 'path-without-slash-twin',
    severity: 'error',
    says: 'a path that is kept out has a twin, with or without a slash at its end, that is not',
    mend: 'name both forms',
    suspect: slashTwins,
  },
  {
    name: 'path-prefix-inside-segment',
    severity: 'warning',
    says: 'a prefix that lets requests through ends inside of a segment, and so takes its neighbours too',
    mend: 'end the prefix with a slash, and name the path itself beside it',
    suspect: openPrefixes,
  },
  {
    name: 'path-passed-in-other-form',
    severity: 'error',
    says: 'a path that is kept out can be written so that the rule does not see it but the program does (istio, below decode-and-merge-slashes)',
    mend: 'set pathNormalization: decode-and-merge-slashes, or say what is allowed instead of what is not; case and final dots need the strict profile and its backend',
    suspect: otherForms,
  },
]
