// A TLS session that is resumed skips the certificate: the authority must never take one up again.
import { once } from 'node:events'
import { connect, type SecureVersion, type TLSSocket } from 'node:tls'
import { describe, expect, it } from 'vitest'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { parseSpiffeId, pathOf } from '../../spiffe/id.ts'
import { keyPairToPem } from '../../spiffe/pem.ts'
import { type Credential, denialOf } from '../support/ca-client.ts'
import { sharedCa } from '../support/shared-ca.ts'

const ca = sharedCa()

async function handshake(
  version: SecureVersion,
  { chain, keys }: Credential,
  session?: Buffer,
): Promise<{ socket: TLSSocket; tickets: Buffer[] }> {
  const tickets: Buffer[] = []
  const socket = connect({
    host: '127.0.0.1',
    port: ca.running.port,
    ca: ca.roots,
    ...keyPairToPem({ chain, key: keys.privateKey }),
    ALPNProtocols: ['h2'],
    minVersion: version,
    maxVersion: version,
    checkServerIdentity: () => undefined,
    ...(session === undefined ? {} : { session }),
  })
  socket.on('error', () => {})
  socket.on('session', (ticket) => tickets.push(ticket))
  await once(socket, 'secureConnect')
  // HTTP/2's SETTINGS come behind the tickets of TLS 1.3
  await once(socket, 'data')
  return { socket, tickets }
}

describe('R4 TLS session resumption', () => {
  it.each<SecureVersion>(['TLSv1.2', 'TLSv1.3'])('is refused in %s', async (version) => {
    const agent = await ca.join()
    const first = await handshake(version, agent)
    const own = first.socket.getSession()
    first.socket.destroy()
    const sessions = [...first.tickets, ...(own === undefined ? [] : [own])]
    for (const session of sessions) {
      const again = await handshake(version, agent, session)
      expect(again.socket.isSessionReused()).toBe(false)
      again.socket.destroy()
    }
  })

  it('and a connection that is open when its agent is banned gets no further', async () => {
    const agent = await ca.join()
    using connection = ca.remote(agent)
    const ask = () => denialOf(connection.client(Entry).getAuthorizedEntries({}))
    expect(await ask()).toBe(undefined)
    const id = { trustDomain: 'example.org', path: pathOf(parseSpiffeId(agent.id)) }
    await ca.local.client(Agent).banAgent({ id })
    expect((await ask())?.code).toMatch(/^(PermissionDenied|Unavailable)$/)
  })
})
