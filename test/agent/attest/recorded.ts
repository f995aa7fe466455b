// Recorded /proc trees, peers that are no real processes, and services that answer what was recorded.

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Demand } from '../../../agent/attest/demand.ts'
import type { PeerProcess } from '../../../agent/attest/peer-credentials.ts'
import { createProc, type Proc } from '../../../agent/attest/proc.ts'
import type { Clock } from '../../../runtime/clock.ts'

export const everything: Demand = { type: () => true, kind: () => true }

export const never = new AbortController().signal

/** The 64 digits of a container, the 32 of a pod, from a name that people can read. */
export const containerId = (name: string) => createHash('sha256').update(name).digest('hex')
export function podUid(name: string): string {
  const digits = createHash('md5').update(name).digest('hex')
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

/** `<c:NAME>`, `<pod:NAME>`, `<pod_:NAME>` and `<podhex:NAME>` stand for what containerId and podUid give. */
export function filled(text: string): string {
  return text
    .replace(/<c:([^>]+)>/g, (_, name: string) => containerId(name))
    .replace(/<pod:([^>]+)>/g, (_, name: string) => podUid(name))
    .replace(/<pod_:([^>]+)>/g, (_, name: string) => podUid(name).replaceAll('-', '_'))
    .replace(/<podhex:([^>]+)>/g, (_, name: string) => podUid(name).replaceAll('-', ''))
}

export const vector = (name: string) =>
  filled(readFileSync(join(import.meta.dirname, '../../vectors/attest', name), 'utf8'))

export interface Folder extends Disposable {
  readonly path: string
  write(name: string, content: string): string
  link(name: string, target: string): void
}

export function temporaryFolder(): Folder {
  const path = mkdtempSync(join(tmpdir(), 'castellan-attest-'))
  const at = (name: string) => {
    const file = join(path, name)
    mkdirSync(dirname(file), { recursive: true })
    return file
  }
  return {
    path,
    write(name, content) {
      writeFileSync(at(name), content)
      return join(path, name)
    },
    link: (name, target) => symlinkSync(target, at(name)),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  }
}

export interface RecordedProc extends Disposable {
  readonly proc: Proc
  readonly folder: Folder
}

export const statusOf = (uid: number, gid: number, groups: readonly number[] = []) =>
  `Name:\tUid:\t0\nUid:\t${uid}\t${uid}\t${uid}\t${uid}\nGid:\t${gid}\t${gid}\t${gid}\t${gid}\nFDSize:\t64\nGroups:\t${groups.join(' ')} \nNStgid:\t7\n`

/** `1234/cgroup` → its text; a value that starts with `-> ` is a link. */
export function recordedProc(files: Readonly<Record<string, string>>): RecordedProc {
  const folder = temporaryFolder()
  for (const [name, content] of Object.entries(files)) {
    if (content.startsWith('-> ')) folder.link(name, content.slice('-> '.length))
    else folder.write(name, filled(content))
  }
  return {
    proc: createProc({ root: folder.path }),
    folder,
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  }
}

export const peer = (pid: number, more: Partial<PeerProcess> = {}): PeerProcess => ({
  ...{ pid, uid: 1000, gid: 1000 },
  isAlive: () => true,
  [Symbol.dispose]: () => {},
  ...more,
})

/** Time that passes when somebody waits: what takes seconds takes none. */
export function hastyClock(): Clock & { readonly waited: number } {
  let now = 1_800_000_000_000
  const start = now
  return {
    now: () => now,
    monotonic: () => now - start,
    async sleep(ms, { signal }) {
      signal.throwIfAborted()
      now += ms
    },
    get waited() {
      return now - start
    },
  }
}

/** A real HTTP server, on a unix socket or on a loopback port. */
export async function serving(answer: RequestListener, path?: string) {
  return listening(createServer(answer), path)
}

export async function listening(server: Server, path?: string) {
  server.listen(path ?? { host: '127.0.0.1', port: 0 })
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
