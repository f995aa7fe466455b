// The folder that the demonstration lives in: configuration, policies, state and logs, gone at the end.
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { stringify } from 'yaml'
import { isAlive } from './address.ts'

const prefix = 'castellan-dev-'
const pidFile = 'pid'

export const trustDomain = 'castellan.dev'
export const services = ['frontend', 'payments'] as const
export type ServiceName = (typeof services)[number]

export function identityOf(service: string): string {
  return `spiffe://${trustDomain}/ns/${service}/sa/${service}`
}

/** What the payments service allows at first; people are told to edit this file. */
export const firstPolicy = `# Who may call payments. Save this file: the change is in force within a second.
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: payments
  namespace: payments
spec:
  action: ALLOW
  rules:
  - from:
    - source:
        principals: ["${trustDomain}/ns/frontend/sa/frontend"]
    to:
    - operation:
        methods: [GET]
        paths: ["/balance"]
`

export interface Stage extends Disposable {
  readonly folder: string
  readonly policyFile: string
  path(...parts: string[]): string
  exists(): boolean
  /** Writes a YAML file and returns its path. */
  write(name: string, content: object): string
  /** A program under another name, and so with another identity, without the space of a copy. */
  programFor(service: string, program: string): string
}

/** A hard link where the file system allows it, for /proc shows the name that was started. */
function linkOrCopy(from: string, to: string): void {
  try {
    linkSync(from, to)
  } catch {
    copyFileSync(from, to)
  }
}

/** Takes away what demonstrations have left that were killed before they could. */
function sweep(): void {
  const left = readdirSync(tmpdir()).filter((name) => name.startsWith(prefix))
  for (const folder of left.map((name) => join(tmpdir(), name))) {
    try {
      const pid = Number(readFileSync(join(folder, pidFile), 'utf8'))
      if (pid > 0 && !isAlive(pid)) rmSync(folder, { recursive: true })
    } catch {
      // no stage, or somebody else's: not ours to take away
    }
  }
}

export function setStage(): Stage {
  sweep()
  const folder = mkdtempSync(join(tmpdir(), prefix))
  const path = (...parts: string[]) => join(folder, ...parts)
  for (const name of ['bin', 'policies', 'log', 'run', 'admin'])
    mkdirSync(path(name), { mode: 0o755 })
  writeFileSync(path(pidFile), String(process.pid))
  const policyFile = path('policies', 'payments.yaml')
  writeFileSync(policyFile, firstPolicy)
  return {
    folder,
    policyFile,
    path,
    exists: () => existsSync(folder),
    write(name, content) {
      writeFileSync(path(name), stringify(content), { mode: 0o600 })
      return path(name)
    },
    programFor(service, program) {
      const target = path('bin', `${service}-proxy`)
      mkdirSync(dirname(target), { recursive: true })
      linkOrCopy(program, target)
      return target
    },
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  }
}
