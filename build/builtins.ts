// Node's own modules in a bundle: taken as they are, instead of imported. An import of node:http evaluates each
// of its properties for the module's namespace, and one of them loads all of undici.
import { isBuiltin } from 'node:module'

const statement = /^import\s+([^;'"]+?)\s+from\s+"([^"]+)";\n/gm

/** `{ a, b as c }` of an import as a pattern, `* as d` and `d` as names. */
function patternsOf(clause: string): readonly string[] {
  const [, first, named] = /^(?:(?:\*\s+as\s+)?([\w$]+))?[\s,]*(\{[^}]*\})?$/s.exec(clause) ?? []
  const pattern = named?.replaceAll(/([\w$]+)\s+as\s+([\w$]+)/g, '$1: $2')
  return [first, pattern].filter((it) => it !== undefined)
}

/** `text` is what esbuild printed, not minified. */
export function withBuiltinsAtHand(text: string): string {
  const constants: string[] = []
  const rest = text.replaceAll(statement, (whole, clause: string, name: string) => {
    if (!isBuiltin(name)) return whole
    for (const pattern of patternsOf(clause))
      constants.push(`const ${pattern} = globalThis.process.getBuiltinModule("${name}");\n`)
    return ''
  })
  const left = /^import[^;]*"node:[^"]+";/m.exec(rest)
  if (left !== null) throw new Error(`this import is not understood: ${left[0]}`)
  return constants.join('') + rest
}
