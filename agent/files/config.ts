// One set of files, key by key: what the files hold, whose they are, and who is told of a new version.
import { z } from 'zod'
import { duration, parsedBy, type pathRelativeTo } from '../../runtime/config.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { type Accounts, createAccounts } from './accounts.ts'

type Path = ReturnType<typeof pathRelativeTo>

const spiffeId = parsedBy(parseSpiffeId)
const trustDomain = parsedBy(parseTrustDomain).optional()

const fileName = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/,
    'a name is letters, digits, dot, hyphen and underscore; folders are made by `folder`',
  )
const mode = z
  .string('a mode is octal, in quotes: "0640"')
  .regex(/^0[0-7]{3}$/, 'a mode is octal, in quotes: "0640"')
  .transform((text) => Number.parseInt(text, 8))
  .refine((bits) => (bits & 0o400) !== 0 && (bits & 0o111) === 0, {
    message: 'the owner has to be able to read, and nobody to execute',
  })
  .optional()

/** what every file has: its name in the set, and who may read it; as the set says when left out */
const common = { name: fileName, mode }

function fileShapes(path: Path) {
  const bundled = { ...common, /** another one than the identity's own */ trustDomain }
  const store = { ...common, /** file with the store's password */ passwordFile: path }
  const audience = z.array(z.string().min(1)).min(1).max(64)
  const alias = z.string().regex(/^[ -~]{1,64}$/, 'up to 64 printable characters of ASCII')
  return z.discriminatedUnion('holds', [
    z.strictObject({ ...common, holds: z.literal('chain') }),
    z.strictObject({ ...common, holds: z.literal('key') }),
    z.strictObject({ ...common, holds: z.literal('key+chain') }),
    z.strictObject({ ...common, holds: z.literal('chain+bundle') }),
    z.strictObject({ ...bundled, holds: z.literal('bundle') }),
    z.strictObject({ ...common, holds: z.literal('federated-bundles') }),
    z.strictObject({ ...store, holds: z.literal('pkcs12'), alias: alias.default('svid') }),
    z.strictObject({ ...store, holds: z.literal('pkcs12-bundle'), trustDomain }),
    z.strictObject({ ...common, holds: z.literal('jwt'), audience }),
    z.strictObject({ ...bundled, holds: z.literal('jwt-bundle') }),
  ])
}

export type FileSpec = z.infer<ReturnType<typeof fileShapes>>

const holdsSecret: ReadonlySet<string> = new Set(['key', 'key+chain', 'pkcs12', 'jwt'])

const signals = ['HUP', 'USR1', 'USR2', 'WINCH', 'INT', 'TERM'] as const

function notification(path: Path) {
  return z
    .strictObject({
      /** file with the number of the process to be signalled */
      pidFile: path.optional(),
      signal: z.enum(signals).optional(),
      /** or a program and its arguments; no shell, no PATH */
      command: z.array(z.string()).min(1).optional(),
      /** for the command; then it is killed */
      timeout: duration.optional(),
    })
    .superRefine(({ pidFile, signal, command, timeout }, context) => {
      const wrong = (message: string) => context.addIssue({ code: 'custom', message })
      if ((pidFile === undefined) === (command === undefined))
        wrong('give either pidFile and signal, or command')
      else if ((pidFile === undefined) !== (signal === undefined))
        wrong('pidFile and signal belong together')
      if (command === undefined && timeout !== undefined) wrong('timeout belongs to command')
      if (command?.[0]?.startsWith('/') === false)
        wrong('command begins with the absolute path of a program')
    })
}

/** An account by its name or number, as a number. */
function account(kind: 'user' | 'group', accounts: Accounts) {
  return z
    .union([z.string(), z.int().min(0)])
    .transform((name, context) => {
      const number = accounts[kind](String(name))
      if (number !== undefined) return number
      const message = `there is no ${kind} ${JSON.stringify(name)} on this machine`
      context.addIssue({ code: 'custom', message })
      return z.NEVER
    })
    .optional()
}

function checkNames({ files }: { readonly files: readonly FileSpec[] }, context: z.RefinementCtx) {
  for (const [i, { name }] of files.entries()) {
    if (files.findIndex((other) => other.name === name) === i) continue
    const message = `${name} stands twice`
    context.addIssue({ code: 'custom', path: ['files', i, 'name'], message })
  }
}

interface Modes {
  readonly mode?: number | undefined
  readonly files: readonly FileSpec[]
}

function checkModes({ mode: common, files }: Modes, context: z.RefinementCtx) {
  for (const [i, { holds, mode = common ?? 0o600 }] of files.entries()) {
    if (!holdsSecret.has(holds) || (mode & 0o007) === 0) continue
    const message = `it holds a secret that everybody could read (${holds}); use a group`
    context.addIssue({ code: 'custom', path: ['files', i, 'mode'], message })
  }
}

/** What all sets have, but for whose files they are. */
function shapeOf(path: Path, accounts: Accounts) {
  return {
    /** which of several entries or SVIDs, by its hint */
    hint: z.string().min(1).optional(),
    /** where `current` and the versions are; not used for anything else */
    folder: path,
    /** whose the files are, by name or number; the writer's when left out */
    owner: account('user', accounts),
    group: account('group', accounts),
    /** who may read, in octal digits; only the owner when left out */
    mode,
    files: z.array(fileShapes(path)).min(1),
    /** who is told of a new version */
    notify: notification(path).optional(),
  }
}

interface Checked extends Modes {
  readonly owner?: number | undefined
  readonly group?: number | undefined
}

function checkSet(accounts: Accounts) {
  return (set: Checked, context: z.RefinementCtx) => {
    checkNames(set, context)
    checkModes(set, context)
    const message = accounts.whyNot(set.owner, set.group)
    if (message === undefined) return
    context.addIssue({
      code: 'custom',
      path: [set.owner === undefined ? 'group' : 'owner'],
      message,
    })
  }
}

function checkFolders(sets: readonly { readonly folder: string }[], context: z.RefinementCtx) {
  const folders = sets.map(({ folder }) => folder)
  for (const [i, folder] of folders.entries()) {
    if (folders.indexOf(folder) === i) continue
    const message = 'another set has this folder already'
    context.addIssue({ code: 'custom', path: [i, 'folder'], message })
  }
}

/** Sets that the agent writes: it holds many identities, and is told which one. */
export function agentFileSets(path: Path, accounts = createAccounts()) {
  const set = z
    .strictObject({ /** whose files they are */ id: spiffeId, ...shapeOf(path, accounts) })
    .superRefine(checkSet(accounts))
  return z.array(set).superRefine(checkFolders).default([])
}

/** Sets that a workload writes for itself; without `id` those of its default identity. */
export function ownFileSets(path: Path, accounts = createAccounts()) {
  const set = z
    .strictObject({ id: spiffeId.optional(), ...shapeOf(path, accounts) })
    .superRefine(checkSet(accounts))
  return z.array(set).min(1).superRefine(checkFolders)
}

export type FileSet = z.infer<ReturnType<typeof ownFileSets>>[number]
