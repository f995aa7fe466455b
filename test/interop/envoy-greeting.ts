// Workloads that speak first, behind a real Envoy: who hears their greeting.
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { connect } from 'node:tls'
import { keyPairToPem } from '../../spiffe/pem.ts'
import { clientId, type DrivenEnvoy } from '../support/driven-envoy.ts'
import { eventually, until } from './eventually.ts'

const greeting = '220 mail.example\r\n'

/** Says something to whoever connects, and counts them. */
async function startGreeting() {
  const sockets = new Set<Socket>()
  let count = 0
  const server = createServer((socket) => {
    count++
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    socket.on('data', () => {}).write(greeting)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const bound = server.address()
  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : 0,
    count: () => count,
    async [Symbol.asyncDispose]() {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** What is heard before Envoy ends the connection, or the greeting; `says` is said first. */
async function heard(it: DrivenEnvoy, says: string): Promise<string> {
  const svid = it.svid()
  const socket = connect({
    ...{ host: '127.0.0.1', port: it.ports.inbound, ca: it.roots(), ...keyPairToPem(svid) },
    checkServerIdentity: () => undefined,
  })
  let text = ''
  const over = Promise.withResolvers<void>()
  socket.on('error', () => {}).on('close', () => over.resolve())
  socket.on('data', (bytes: Buffer) => {
    text += bytes.toString('latin1')
    if (text === greeting) over.resolve()
  })
  socket.write(says)
  await over.promise
  socket.destroy()
  return text
}

/** Lets the client in, where it asks for that port of the workload. */
export const tcpRules = (port: number) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: tcp, namespace: shop }
spec:
  action: ALLOW
  rules:
    - from: [{ source: { principals: ["${clientId.slice('spiffe://'.length)}"] } }]
      to: [{ operation: { ports: ["${port}"] } }]
`

function demand(isSo: boolean, what: string): asserts isSo {
  if (!isSo) throw new Error(what)
}

/** Nobody is connected to the workload before it was decided, unless the spec says that it speaks first. */
export async function greets(it: DrivenEnvoy): Promise<void> {
  await using workload = await startGreeting()
  const leadsOn = (serverFirst: boolean) =>
    it.edit(({ identity, outbound, inbound }) => ({
      ...{ identity, outbound },
      inbound: inbound.map(({ healthPath: _, ...one }) => ({
        ...{ ...one, protocol: 'tcp', forwardTo: `127.0.0.1:${workload.port}` },
        ...(serverFirst ? { serverFirst } : {}),
      })),
    }))
  leadsOn(false)
  await it.apply(tcpRules(workload.port))
  await eventually('the workload is heard', async () => {
    demand((await heard(it, 'EHLO\r\n')) === greeting, 'nothing was heard')
  })
  await it.apply(tcpRules(1))
  await until('whoever is denied hears nothing', async () => (await heard(it, 'EHLO\r\n')) === '')
  const before = workload.count()
  demand((await heard(it, 'EHLO\r\n')) === '', 'whoever is denied hears the workload')
  demand(workload.count() === before, 'the workload heard of one who is denied')
  await it.apply(tcpRules(workload.port))
  leadsOn(true)
  await eventually('the workload speaks first', async () => {
    demand((await heard(it, '')) === greeting, 'nothing was heard')
  })
}
