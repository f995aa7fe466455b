// What outlives the authority of a peer at a real Envoy: no session, and no connection either.
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import type { DevCa } from '../../certs-dev/authority.ts'
import type { X509Bundle } from '../../spiffe/bundle.ts'
import { toPem } from '../../spiffe/pem.ts'
import { type DrivenEnvoy, federate } from '../support/driven-envoy.ts'
import { show } from '../support/odd-certificates.ts'
import { connectRaw } from '../support/raw-http1.ts'
import { eventually } from './eventually.ts'

export interface Resumed {
  readonly partner: DevCa
  readonly partnerId: string
  /** of the same trust domain, without that authority */
  readonly successor: X509Bundle
}

interface Visit {
  /** the first line of the answer; empty when there was none */
  readonly answer: string
  readonly isReused: boolean
  readonly session: Buffer | undefined
}

const request = 'GET /ok HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n'

/** One request over a connection of its own, and the session that it leaves. */
function visit(options: ConnectionOptions): Promise<Visit> {
  const { promise, resolve, reject } = Promise.withResolvers<Visit>()
  const socket: TLSSocket = connect(options, () => socket.write(request))
  let session: Buffer | undefined
  let isReused = false
  let text = ''
  socket.on('session', (it) => {
    session = it
  })
  socket.on('secureConnect', () => {
    isReused = socket.isSessionReused()
    session ??= socket.getSession()
  })
  socket.on('data', (it) => {
    text += it.toString('latin1')
  })
  socket.on('error', () => {})
  socket.setTimeout(15_000, () => {
    reject(new Error('no answer in 15 seconds, which is no refusal'))
    socket.destroy()
  })
  socket.on('close', () => resolve({ answer: text.split('\r\n')[0] ?? '', isReused, session }))
  return promise
}

const versions = ['TLSv1.2', 'TLSv1.3'] as const

/** Throws when one of them is resumed, or goes on after the partner has replaced its authority. */
export async function refusesSessions(
  it: DrivenEnvoy,
  { partner, partnerId, successor }: Resumed,
): Promise<void> {
  const { chain, key } = show(partner, { id: partnerId })
  const door = { port: it.ports.inbound, svid: { chain, key }, roots: it.roots() }
  const options = (version: (typeof versions)[number]): ConnectionOptions => ({
    ...{ host: '127.0.0.1', port: door.port, ca: door.roots },
    cert: chain.map((der) => toPem(der, 'CERTIFICATE')).join(''),
    key: key.export({ format: 'pem', type: 'pkcs8' }),
    ...{ minVersion: version, maxVersion: version, checkServerIdentity: () => undefined },
  })
  const sessions = new Map<string, Buffer | undefined>()
  for (const version of versions) {
    const { answer, session } = await visit(options(version))
    if (!answer.includes('200')) throw new Error(`${version}: ${answer || 'no answer'}`)
    sessions.set(version, session)
    const again = await visit({ ...options(version), ...(session && { session }) })
    if (again.isReused) throw new Error(`${version}: a session was resumed`)
    if (!again.answer.includes('200')) throw new Error(`${version}, again: ${again.answer}`)
  }
  using live = connectRaw(door)
  const before = await live.get('/ok')
  if (before.status !== 200) throw new Error(`a connection of the partner: ${before.status}`)
  await federate(it.node, [successor])
  await eventually('a connection of before is refused', async () => {
    const { status } = await live.get('/ok')
    if (status !== 403 && status !== 0) throw new Error(String(status))
  })
  for (const version of versions) {
    const session = sessions.get(version)
    await eventually('a session of before is refused', async () => {
      const { answer } = await visit({ ...options(version), ...(session && { session }) })
      if (answer !== '') throw new Error(`${version}: ${answer}`)
    })
  }
}
