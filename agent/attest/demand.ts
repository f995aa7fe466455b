// Which kinds of selectors the entries of this node ask for: nothing expensive is found out for nobody.

export interface Demand {
  /** whether selectors of that type are asked for, such as `docker` */
  type(type: string): boolean
  /** the same, closer: `unix:sha256` */
  kind(kind: string): boolean
}

/** The entries of this node, as far as they matter here. */
export interface Entries {
  readonly entries: ReadonlyMap<string, { readonly selectors: readonly string[] }>
  onChange(listener: () => void): Disposable
}

/** `unix:sha256:0f…` asks for `unix:sha256`. */
const kindOf = (selector: string) => selector.split(':', 2).join(':')
const typeOf = (kind: string) => kind.split(':', 1).join()

export function demandOf(entries: Iterable<{ readonly selectors: readonly string[] }>): Demand {
  const kinds = new Set<string>()
  for (const { selectors } of entries) for (const one of selectors) kinds.add(kindOf(one))
  const types = new Set([...kinds].map(typeOf))
  return { type: (type) => types.has(type), kind: (kind) => kinds.has(kind) }
}

// environments hold passwords: shown to nobody unless an entry names them
const secretKind = 'docker:env'

/** Everything that can be told of a process, to explain it. */
export function everythingAnd(demand: Demand): Demand {
  return { type: () => true, kind: (kind) => kind !== secretKind || demand.kind(kind) }
}

/** The demand of what is known now; the same object until something else is known. */
export function createDemand(knowledge: Entries): () => Demand {
  let known: Demand | undefined
  // for as long as there is knowledge
  knowledge.onChange(() => {
    known = undefined
  })
  return () => {
    known ??= demandOf(knowledge.entries.values())
    return known
  }
}
