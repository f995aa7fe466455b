// A radix tree of prefixes: finds all that a text starts with in one walk along the text, however many
// there are.

interface Node<T> {
  /** what stands between the parent and this node */
  label: string
  values: T[]
  readonly children: Map<number, Node<T>>
}

export interface Trie<T> {
  add(prefix: string, value: T): void
  /** Calls `visit` for the values of each prefix of `text`, until it returns true: then so does this. */
  some(text: string, visit: (values: readonly T[]) => boolean): boolean
  readonly isEmpty: boolean
}

function commonLength(label: string, text: string, from: number): number {
  const most = Math.min(label.length, text.length - from)
  let length = 0
  while (length < most && label.charCodeAt(length) === text.charCodeAt(from + length)) length++
  return length
}

const leaf = <T>(label: string): Node<T> => ({ label, values: [], children: new Map() })

/** Cuts a node in two, so that one ends after `length` characters of its label. */
function split<T>(node: Node<T>, length: number, parent: Node<T>): Node<T> {
  const upper = leaf<T>(node.label.slice(0, length))
  node.label = node.label.slice(length)
  upper.children.set(node.label.charCodeAt(0), node)
  parent.children.set(upper.label.charCodeAt(0), upper)
  return upper
}

export function createTrie<T>(): Trie<T> {
  const root = leaf<T>('')
  let size = 0

  function nodeOf(prefix: string): Node<T> {
    let node = root
    let at = 0
    while (at < prefix.length) {
      const next = node.children.get(prefix.charCodeAt(at))
      if (next === undefined) {
        const made = leaf<T>(prefix.slice(at))
        node.children.set(prefix.charCodeAt(at), made)
        return made
      }
      const length = commonLength(next.label, prefix, at)
      node = length < next.label.length ? split(next, length, node) : next
      at += length
    }
    return node
  }

  return {
    add(prefix, value) {
      nodeOf(prefix).values.push(value)
      size++
    },
    some(text, visit) {
      let node = root
      let at = 0
      for (;;) {
        if (node.values.length > 0 && visit(node.values)) return true
        if (at >= text.length) return false
        const next = node.children.get(text.charCodeAt(at))
        if (next === undefined || !text.startsWith(next.label, at)) return false
        at += next.label.length
        node = next
      }
    },
    get isEmpty() {
      return size === 0
    },
  }
}

/** The same text from its end, for suffixes. */
export function reversed(text: string): string {
  let result = ''
  for (let i = text.length - 1; i >= 0; i--) result += text.charAt(i)
  return result
}
