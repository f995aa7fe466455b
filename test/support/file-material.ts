// What files are made of, from a trust domain of the test's own, and changed by the test.

import { type FileSet, ownFileSets } from '../../agent/files/config.ts'
import type { Material, MaterialSource } from '../../agent/files/material.ts'
import type { FileWriter, SetStatus } from '../../agent/files/writer.ts'
import { issueDev } from '../../certs-dev/authority.ts'
import { parseConfig, pathRelativeTo } from '../../runtime/config.ts'
import { createTopic } from '../../runtime/lifecycle.ts'
import { bundleOf } from '../../spiffe/bundle.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { foreignDomain } from './bundle-endpoint.ts'

const own = foreignDomain('example.org')
const other = foreignDomain('other.org')
const nameOf = parseTrustDomain('example.org')
const otherName = parseTrustDomain('other.org')

/** A new SVID of /web, with its bundle and nothing else but what `more` says. */
export function newMaterial(more: Partial<Material> = {}): Material {
  const [notBefore, notAfter] = [Date.now() - 60_000, Date.now() + 3_600_000]
  const { chain, privateKey } = issueDev(own.ca, {
    ...{ id: 'spiffe://example.org/web', notBefore, notAfter },
  })
  return {
    id: parseSpiffeId('spiffe://example.org/web'),
    ...{ chain, notAfter },
    key: privateKey.export({ format: 'der', type: 'pkcs8' }),
    bundles: [bundleOf(nameOf, [own.root])],
    tokens: new Map(),
    jwks: new Map(),
    lacking: [],
    until: Number.POSITIVE_INFINITY,
    ...more,
  }
}

export const federated = bundleOf(otherName, [other.root])
export { nameOf as ownName, otherName }

export interface TestSource extends MaterialSource {
  /** What there is from now on, or why there is nothing. */
  become(next: Material | Error): void
}

export function createTestSource(first: Material | Error): TestSource {
  const topic = createTopic<void>()
  let state = first
  return {
    async now() {
      if (state instanceof Error) throw state
      return state
    },
    onChange: (listener) => topic.subscribe(listener),
    become(next) {
      state = next
      topic.publish()
    },
  }
}

/** Sets as somebody writes them, with paths relative to `folder`. */
export function setsOf(folder: string, text: string): FileSet[] {
  const file = `${folder}/files.yaml`
  return parseConfig(text, file, ownFileSets(pathRelativeTo(file)))
}

/** Resolves once the first set of the writer stands as wanted. */
export async function untilStatus(
  writer: Pick<FileWriter, 'status' | 'onChange'>,
  isIt: (status: SetStatus) => boolean,
): Promise<SetStatus> {
  const { promise, resolve, reject } = Promise.withResolvers<SetStatus>()
  const look = () => {
    const [status] = writer.status()
    if (status !== undefined && isIt(status)) resolve(status)
  }
  using _ = writer.onChange(look)
  const late = () => reject(new Error(`still ${JSON.stringify(writer.status())}`))
  AbortSignal.timeout(60_000).addEventListener('abort', late)
  look()
  return await promise
}
