// Policy files to policies: YAML in, documents with places out.
import { readDocuments, refuseAt } from '../documents/yaml.ts'
import { type PolicyDocument, policyDocument, type RuleDocument } from './schema.ts'

export interface PolicyText {
  /** named in errors and explanations */
  readonly name: string
  readonly text: string
}

/** A policy that was read; `rules` are as written. */
export interface Policy {
  readonly namespace: string
  readonly name: string
  readonly action: 'ALLOW' | 'DENY'
  readonly rules: readonly RuleDocument[]
  readonly file: string
  /** lines of the rules in the file, from 1 */
  readonly lines: readonly number[]
}

function policyOf(
  value: PolicyDocument,
  file: string,
  lineOf: (path: readonly (string | number)[]) => number,
): Policy {
  const { metadata, spec } = value
  return {
    namespace: metadata.namespace,
    name: metadata.name,
    action: spec.action,
    rules: spec.rules,
    file,
    lines: spec.rules.map((_, i) => lineOf(['spec', 'rules', i])),
  }
}

/**
 * Reads all files as one set. Throws ERR_POLICY with file, line and field of every problem; two policies
 * of one name are a problem of the second.
 */
export function readPolicies(files: readonly PolicyText[]): Policy[] {
  const known = new Map<string, Policy>()
  for (const { name: file, text } of files) {
    for (const { value, lineOf } of readDocuments(text, file, policyDocument, 'ERR_POLICY')) {
      const policy = policyOf(value, file, lineOf)
      const key = `${policy.namespace}/${policy.name}`
      const first = known.get(key)
      if (first !== undefined) {
        const problem = `a second policy ${key} (the first is in ${first.file})`
        refuseAt(file, 'ERR_POLICY', [
          { line: lineOf(['metadata', 'name']), path: ['metadata', 'name'], problem },
        ])
      }
      known.set(key, policy)
    }
  }
  return [...known.values()]
}
