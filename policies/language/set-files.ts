// What the files of a set are, by their names: policies, or the tests that go with them.
import type { PolicyText } from './read.ts'

/** `*.cases.yaml`: kept with the set, run before it comes into force, never decided with. */
export function isCases({ name }: Pick<PolicyText, 'name'>): boolean {
  return /\.cases\.ya?ml$/.test(name)
}

export function policiesIn<T extends Pick<PolicyText, 'name'>>(files: readonly T[]): T[] {
  return files.filter((file) => !isCases(file))
}
