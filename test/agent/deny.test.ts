// The deny-list on a node: a denied certificate is replaced at once, a denied identity is taken away,
// and programs that know no deny-list get a CRL.
import 'reflect-metadata'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import * as x509 from '@peculiar/x509'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseEndpoint } from '../../client/endpoint.ts'
import { openTransport } from '../../client/transport.ts'
import { startX509Source } from '../../client/x509-source.ts'
import { DenyRules } from '../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { SpiffeWorkloadAPI } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { denialOf } from '../support/ca-client.ts'
import { startNode, type TestNode } from '../support/node.ts'

let node: TestNode
beforeAll(async () => {
  node = await startNode()
  await node.register('/here', [`unix:uid:${process.getuid?.()}`])
  // asks until the agent has heard of it
  await using source = startX509Source({ kind: 'unix', path: node.agent.socket })
  await source.ready(AbortSignal.timeout(60_000))
})
afterAll(() => node[Symbol.asyncDispose]())

const rules = () => createClient(DenyRules, node.local)
const header = { headers: { 'workload.spiffe.io': 'true' } }

interface Seen {
  readonly serial: string
  readonly crls: readonly x509.X509Crl[]
  readonly bundle: Uint8Array
}

/** The SVIDs as they are pushed; ends with the stream's error. */
async function* follow(): AsyncGenerator<Seen> {
  using local = openTransport(parseEndpoint(`unix://${node.agent.socket}`))
  const client = createClient(SpiffeWorkloadAPI, local.transport)
  for await (const { svids, crl } of client.fetchX509SVID({}, header)) {
    const [svid] = svids
    yield {
      serial: parseCertificate(svid?.x509Svid ?? new Uint8Array()).serial,
      crls: crl.map((der) => new x509.X509Crl(der)),
      bundle: svid?.bundle ?? new Uint8Array(),
    }
  }
}

async function until(stream: AsyncGenerator<Seen>, is: (seen: Seen) => boolean): Promise<Seen> {
  while (true) {
    const { value, done } = await stream.next()
    if (done === true) throw new Error('the stream ended')
    if (is(value)) return value
  }
}

/** The first serial that is handed out from now on: asks until the agent has heard. */
async function nextSerial(): Promise<string> {
  while (true) {
    const stream = follow()
    try {
      return (await until(stream, () => true)).serial
    } catch (error) {
      if (ConnectError.from(error).code !== Code.PermissionDenied) throw error
    } finally {
      await stream.return(undefined)
    }
  }
}

const serialsOf = ({ crls }: Seen) =>
  crls.flatMap(({ entries }) => entries.map(({ serialNumber }) => serialNumber.toLowerCase()))

describe('on a node', () => {
  it('a denied certificate is replaced at once, and stands in a CRL that its authority signed', async () => {
    const stream = follow()
    const first = await until(stream, () => true)
    expect(first.crls).toEqual([])
    const target = { case: 'serial', value: first.serial } as const
    const { id } = await rules().addRule({ rule: { target } })
    const after = await until(
      stream,
      (seen) => seen.serial !== first.serial && seen.crls.length > 0,
    )
    expect(serialsOf(after)).toEqual([first.serial])
    const root = new x509.X509Certificate(after.bundle)
    expect(await after.crls[0]?.verify({ publicKey: root })).toBe(true)
    await rules().removeRule({ id })
    await until(stream, ({ crls }) => crls.length === 0)
    await stream.return(undefined)
  })

  it('a denied identity is taken away, until the rule is taken back', async () => {
    const stream = follow()
    const { serial } = await until(stream, () => true)
    const target = { case: 'spiffeId', value: 'spiffe://example.org/here' } as const
    const { id } = await rules().addRule({ rule: { target, reason: 'a drill' } })
    const ended = await denialOf(until(stream, () => false))
    expect(ended).toEqual({ code: 'PermissionDenied', message: 'no identity issued' })
    expect(await denialOf(until(follow(), () => true))).toEqual(ended)
    await rules().removeRule({ id })
    expect(await nextSerial()).not.toBe(serial)
  })
})
