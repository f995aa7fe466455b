// Policies and meshes from files, as commands name them.
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { isCaseFile } from '../../policies/cases/file.ts'
import { type Mesh, meshDocument, type Profile } from '../../policies/language/mesh.ts'
import type { PolicyText } from '../../policies/language/read.ts'
import { isCases } from '../../policies/language/set-files.ts'
import { parseConfig } from '../../runtime/config.ts'
import { errnoOf } from '../../runtime/errno.ts'
import { IdentityError } from '../../spiffe/errors.ts'

function attempt<T>(name: string, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    throw new IdentityError('ERR_BAD_REQUEST', `cannot read ${name} (${errnoOf(cause)})`, { cause })
  }
}

const textOf = (name: string): PolicyText => ({
  name,
  text: attempt(name, () => readFileSync(name, 'utf8')),
})

/** The `*.yaml` and `*.yml` directly in a folder, by name, without cases. Throws ERR_BAD_REQUEST for one without. */
function inFolder(folder: string): PolicyText[] {
  const names = attempt(folder, () => readdirSync(folder))
    .filter((name) => /\.ya?ml$/.test(name) && !isCaseFile(name))
    .sort()
  if (names.length === 0) {
    throw new IdentityError('ERR_BAD_REQUEST', `${folder} holds no *.yaml and no *.yml`)
  }
  return names.map((name) => textOf(join(folder, name)))
}

/** Files and folders. Throws ERR_BAD_REQUEST naming what cannot be read. */
export function readPolicyTexts(names: readonly string[]): PolicyText[] {
  return names.flatMap((name) =>
    attempt(name, () => statSync(name)).isDirectory() ? inFolder(name) : [textOf(name)],
  )
}

/** The same with the tests of the policies (`*.cases.yaml`), as an authority keeps them together. */
export function readPolicySet(names: readonly string[]): PolicyText[] {
  const cases = names
    .filter((name) => attempt(name, () => statSync(name)).isDirectory())
    .flatMap((folder) =>
      attempt(folder, () => readdirSync(folder))
        .filter((name) => isCases({ name }))
        .sort()
        .map((name) => textOf(join(folder, name))),
    )
  return [...readPolicyTexts(names), ...cases]
}

/** Whose names say that they hold cases, by name or in folders. Throws ERR_BAD_REQUEST for one without. */
export function findCaseFiles(names: readonly string[]): string[] {
  return names.flatMap((name) => {
    if (!attempt(name, () => statSync(name)).isDirectory()) {
      if (isCaseFile(basename(name))) return [name]
      const how = 'name *.cases.yaml or *.cases.jsonl, or the folder they are in'
      throw new IdentityError('ERR_BAD_REQUEST', `${name} is no file of cases: ${how}`)
    }
    const found = attempt(name, () => readdirSync(name))
      .filter(isCaseFile)
      .sort()
    if (found.length > 0) return found.map((it) => join(name, it))
    throw new IdentityError('ERR_BAD_REQUEST', `${name} holds no *.cases.yaml and no *.cases.jsonl`)
  })
}

/** Throws ERR_CONFIG with file, line and field. */
export function readMesh(file: string | undefined, profile: Profile): Mesh {
  if (file === undefined) return { profile, ...meshDocument.parse({}) }
  const { text } = textOf(file)
  // an empty file says nothing else than no file
  const isEmpty = text.split('\n').every((line) => /^\s*(?:#.*)?$/.test(line))
  if (isEmpty) return { profile, ...meshDocument.parse({}) }
  return { profile, ...parseConfig(text, file, meshDocument) }
}
