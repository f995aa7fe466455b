// The X.509 profile as it is served: SVIDs, keys and bundles, read by our own parser and by Node's.
import { strict as assert } from 'node:assert'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import type { X509SVID } from '../../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { bundleOfDer, bundleSourceOf } from '../../../spiffe/bundle.ts'
import {
  type Certificate,
  extensionOids,
  hasUsage,
  keyUsages,
  parseCertificate,
  splitDer,
} from '../../../spiffe/certificate.ts'
import { isSpiffeId, parseSpiffeId, pathOf } from '../../../spiffe/id.ts'
import { clientAuth, serverAuth, verifySvid } from '../../../spiffe/svid.ts'
import { check } from './check.ts'
import type { Scene } from './scene.ts'

const parsed = (der: Uint8Array) => splitDer(der).map(parseCertificate)
const leafOf = ({ x509Svid }: X509SVID): Certificate =>
  parsed(x509Svid)[0] ?? assert.fail('an SVID without certificate')
const leaves = ({ served }: Scene) => served.x509.svids.map(leafOf)
const urisOf = ({ names }: Certificate) =>
  names.flatMap((name) => (name.kind === 'uri' ? [name.value] : []))

/** The certificates that sign: of the own bundle, and between it and the leaves. */
function signing({ served }: Scene): readonly Certificate[] {
  return served.x509.svids.flatMap(({ x509Svid, bundle }) => [
    ...parsed(x509Svid).slice(1),
    ...parsed(bundle),
  ])
}

const isCritical = ({ extensions }: Certificate, name: keyof typeof extensionOids) =>
  extensions.get(extensionOids[name])?.critical === true

/** Each certificate signed by the next one, and the last by one of the bundle: Node's own word. */
function signedByNode({ x509Svid, bundle }: X509SVID): boolean {
  const chain = splitDer(x509Svid).map((der) => new X509Certificate(der))
  const roots = splitDer(bundle).map((der) => new X509Certificate(der))
  return chain.every((certificate, i) => {
    const next = chain[i + 1]
    const issuers = next === undefined ? roots : [next]
    return issuers.some((it) => certificate.checkIssued(it) && certificate.verify(it.publicKey))
  })
}

function verifies({ spiffeId, x509Svid, bundle }: X509SVID, { trustDomain }: Scene): void {
  const source = bundleSourceOf(bundleOfDer(trustDomain, bundle))
  const { id } = verifySvid(splitDer(x509Svid), source, { now: Date.now() })
  assert.equal(id, spiffeId)
}

export const x509Checks = [
  check('WA-11', 'one SVID at least', ({ served }) => {
    assert.ok(served.x509.svids.length > 0, 'none')
  }),
  check(
    'WA-12 X5-17',
    'every field is set, the chain leads from the leaf to the bundle',
    (scene) => {
      for (const svid of scene.served.x509.svids) {
        verifies(svid, scene)
        assert.ok(signedByNode(svid), 'Node says otherwise')
        const key = { key: Buffer.from(svid.x509SvidKey), format: 'der', type: 'pkcs8' } as const
        const certificate = new X509Certificate(splitDer(svid.x509Svid)[0] ?? Buffer.alloc(0))
        assert.ok(certificate.checkPrivateKey(createPrivateKey(key)), 'the key is of another one')
      }
    },
  ),
  check('X5-1', 'exactly one URI SAN, the SPIFFE ID', ({ served }) => {
    for (const svid of served.x509.svids) assert.deepEqual(urisOf(leafOf(svid)), [svid.spiffeId])
  }),
  check('X5-4', 'the ID of a leaf has a path', ({ served }) => {
    for (const { spiffeId } of served.x509.svids)
      assert.notEqual(pathOf(parseSpiffeId(spiffeId)), '')
  }),
  check('X5-5', 'an empty subject makes the SAN critical', (scene) => {
    for (const leaf of leaves(scene))
      assert.ok(leaf.hasSubject || isCritical(leaf, 'subjectAltName'), 'neither')
  }),
  check(
    'X5-6 X5-7 ID-20 ID-21',
    'signing certificates have the ID of the trust domain',
    (scene) => {
      for (const certificate of signing(scene))
        assert.deepEqual(urisOf(certificate), [`spiffe://${scene.trustDomain}`])
    },
  ),
  check('X5-10', 'cA is true on signing certificates and false on leaves', (scene) => {
    for (const leaf of leaves(scene)) assert.equal(leaf.isCa, false)
    for (const certificate of signing(scene)) assert.equal(certificate.isCa, true)
  }),
  check('X5-11', 'no name constraints', (scene) => {
    for (const certificate of [...leaves(scene), ...signing(scene)])
      assert.equal(certificate.nameConstraints, undefined)
  }),
  check('X5-12', 'key usage is present and critical', (scene) => {
    for (const certificate of [...leaves(scene), ...signing(scene)])
      assert.ok(isCritical(certificate, 'keyUsage'), 'it is not')
  }),
  check('X5-13', 'signing certificates: keyCertSign, no digitalSignature', (scene) => {
    for (const certificate of signing(scene)) {
      assert.ok(hasUsage(certificate, keyUsages.keyCertSign), 'no keyCertSign')
      assert.ok(!hasUsage(certificate, keyUsages.digitalSignature), 'digitalSignature')
    }
  }),
  check('X5-14', 'leaves: digitalSignature, neither keyCertSign nor cRLSign', (scene) => {
    for (const leaf of leaves(scene)) {
      assert.ok(hasUsage(leaf, keyUsages.digitalSignature), 'no digitalSignature')
      assert.ok(!hasUsage(leaf, keyUsages.keyCertSign), 'keyCertSign')
      assert.ok(!hasUsage(leaf, keyUsages.cRLSign), 'cRLSign')
    }
  }),
  check('X5-15', 'leaves: serverAuth and clientAuth', (scene) => {
    for (const { extendedKeyUsage } of leaves(scene))
      for (const purpose of [serverAuth, clientAuth])
        assert.ok(extendedKeyUsage?.includes(purpose), `${extendedKeyUsage} without ${purpose}`)
  }),
  check('X5-16', 'no extended key usage on signing certificates', (scene) => {
    for (const { extendedKeyUsage } of signing(scene)) assert.equal(extendedKeyUsage, undefined)
  }),
  check('WA-10', 'bundles are keyed by SPIFFE IDs of trust domains', ({ served }) => {
    const maps = [served.x509.federatedBundles, served.x509Bundles.bundles]
    const names = [...maps, served.jwtBundles.bundles].flatMap((map) => Object.keys(map))
    for (const name of names)
      assert.ok(isSpiffeId(name) && pathOf(parseSpiffeId(name)) === '', `${name} is none`)
  }),
  check('WA-17 FE-10', 'FetchX509Bundles has the own bundle, and the federated ones', (scene) => {
    const { x509, x509Bundles } = scene.served
    const own = x509.svids[0]?.bundle ?? assert.fail('no SVID')
    const wanted = { ...x509.federatedBundles, [`spiffe://${scene.trustDomain}`]: own }
    assert.deepEqual({ ...x509Bundles.bundles }, wanted)
  }),
  check('WA-16 FE-6', 'a bundle holds certificates of its own trust domain', ({ served }) => {
    const { bundles } = served.x509Bundles
    const all = Object.values(bundles).flatMap((der) => splitDer(der))
    assert.equal(new Set(all.map((der) => Buffer.from(der).toString('hex'))).size, all.length)
    for (const der of all) assert.ok(parseCertificate(der).isCa, 'no CA certificate')
  }),
  check('WA-13 WA-14', 'hints are unique, and of 1024 bytes at most', ({ served }) => {
    const { x509, jwt, wit } = served
    const wits = wit.kind === 'there' ? wit.it.svids.svids : []
    for (const svids of [x509.svids, jwt.svids, wits]) {
      const hints = svids.map(({ hint }) => hint).filter((hint) => hint !== '')
      assert.equal(new Set(hints).size, hints.length, `twice in ${hints.join(', ')}`)
      for (const hint of hints) assert.ok(Buffer.byteLength(hint) <= 1024)
    }
  }),
]
