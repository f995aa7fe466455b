import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { signCrl } from '../../ca/crl.ts'
import { type DevCa, issueDev, makeDevCa } from '../../certs-dev/authority.ts'
import { revocationOf } from '../../client/revocation.ts'
import { connectTls } from '../../client/tls-connect.ts'
import { startTlsServer } from '../../client/tls-server.ts'
import type { OwnSvid } from '../../client/x509-source.ts'
import { bundleOf, bundleSourceOf } from '../../spiffe/bundle.ts'
import { parseCertificate, type Serial } from '../../spiffe/certificate.ts'
import { explain } from '../../spiffe/errors.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { keyIdOf } from '../../spiffe/key-id.ts'
import { matchMemberOf } from '../../spiffe/match.ts'
import { verifySvid } from '../../spiffe/svid.ts'
import { nextOf, textOf, tlsSource } from './tls-source.ts'

const now = Date.now()
const times = { notBefore: now - 60_000, notAfter: now + 3_600_000 }
const root = makeDevCa({ name: 'root', ...times })
const parent = makeDevCa({ name: 'parent', parent: root, ...times })
const td = parseTrustDomain('td')
const bundle = bundleOf(td, [root.certificate])

function issue(id: string): OwnSvid {
  const { chain, privateKey: key } = issueDev(parent, { id, ...times })
  const [leaf = new Uint8Array()] = chain
  const { serial, notAfter } = parseCertificate(leaf)
  return { id: parseSpiffeId(id), chain, key, serial, notAfter, hint: '' }
}

function listOf({ subject: issuer, publicKey, privateKey }: DevCa, ...serials: Serial[]): Buffer {
  const spki = publicKey.export({ format: 'der', type: 'spki' })
  const fields = { issuer, authorityKeyId: keyIdOf(spki), number: 1 }
  const revoked = serials.map((serial) => ({ serial, at: now }))
  const dates = { thisUpdate: now - 60_000, nextUpdate: now + 60_000 }
  return signCrl({ ...fields, ...dates, revoked }, privateKey)
}

const serialOf = (ca: DevCa) => parseCertificate(ca.certificate).serial
const svid = issue('spiffe://td/a')
const { path } = verifySvid(svid.chain, bundleSourceOf(bundle), { now })

describe('revocation lists', () => {
  it('take back a leaf, and an intermediate', () => {
    expect(revocationOf([])(path)).toBeUndefined()
    expect(revocationOf([listOf(parent), listOf(root)])(path)).toBeUndefined()
    expect(revocationOf([listOf(parent, issue('spiffe://td/b').serial)])(path)).toBeUndefined()
    const lists = [listOf(root), listOf(parent, svid.serial)]
    expect(revocationOf(lists)(path)).toBe(`certificate ${svid.serial} was revoked`)
    const upper = revocationOf([listOf(root, serialOf(parent))])
    expect(upper(path)).toBe(`certificate ${serialOf(parent)} was revoked`)
  })

  it('are those of the issuer only: neither of its name nor of its signer alone', () => {
    const sameName = makeDevCa({ name: 'parent', ...times })
    const sameKey = { ...parent, subject: root.subject }
    for (const other of [root, sameName, sameKey])
      expect(revocationOf([listOf(other, svid.serial)])(path)).toBeUndefined()
  })

  it('are refused when they cannot be read', () => {
    const whole = listOf(parent, svid.serial)
    for (const bad of [Buffer.from('x'), whole.subarray(0, -1), Buffer.concat([whole, whole])]) {
      expect(() => revocationOf([bad])).toThrow('malformed revocation list')
    }
  })

  it('are read or refused, whatever their bytes', () => {
    const whole = listOf(parent, svid.serial, serialOf(parent))
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), (i, byte) => {
        const changed = Buffer.from(whole)
        changed[i] = byte
        try {
          const said = revocationOf([changed])(path)
          // what still revokes is what was signed
          expect(said === undefined || changed.equals(whole)).toBe(true)
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_CERTIFICATE' })
        }
      }),
      { numRuns: 300 },
    )
  })

  it('end live connections and keep new ones from being made, on both sides', async () => {
    const ours = tlsSource(issue('spiffe://td/client'), bundle)
    const theirs = tlsSource(svid, bundle)
    const refusals: string[] = []
    const accept = matchMemberOf(td)
    const onRefusal = (reason: unknown) => void refusals.push(explain(reason))
    const at = { host: '127.0.0.1', accept }
    await using server = await startTlsServer(theirs, { ...at, port: 0, onRefusal }, (socket) =>
      socket.write('hello'),
    )
    const { port } = server
    const { socket } = await connectTls(ours, { ...at, port })
    expect(await nextOf(socket)).toBe('hello')
    theirs.revoke(listOf(parent, ours.svid()?.serial ?? svid.serial))
    expect(await textOf(socket)).toBe('')
    expect(await textOf((await connectTls(ours, { ...at, port })).socket)).toBe('')
    expect(refusals).toHaveLength(1)
    theirs.revoke()
    const again = await connectTls(ours, { ...at, port })
    await nextOf(again.socket)
    ours.revoke(listOf(parent, svid.serial))
    expect(await textOf(again.socket)).toBe('')
    await expect(connectTls(ours, { ...at, port })).rejects.toMatchObject({
      code: 'ERR_UNTRUSTED',
      message: `spiffe://td/a: certificate ${svid.serial} was revoked`,
    })
  })
})
