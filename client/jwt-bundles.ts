// The keys that verify JWT-SVIDs, by trust domain, as the Workload API hands them out.
import type { JWTBundlesResponse } from '../proto/gen/spiffe/workload/workloadapi_pb.js'
import { parseBundleDocument, type TokenKey } from '../spiffe/bundle-document.ts'
import { parseTrustDomain, type TrustDomain } from '../spiffe/id.ts'
import { isMembers } from '../spiffe/json.ts'

/** SPIRE leaves `use` out here, where there is one use only (Workload API §6.2.2); any other is not taken. */
function withUse(_: string, value: unknown): unknown {
  const isKey = isMembers(value) && 'kty' in value
  return isKey && !('use' in value) ? { ...value, use: 'jwt-svid' } : value
}

function keysOf(json: string, source: string): readonly TokenKey[] {
  // refuses what is malformed, before a second writing of it could hide that
  parseBundleDocument(json, source)
  const document: unknown = JSON.parse(json, withUse)
  const { keys } = isMembers(document) ? document : {}
  return parseBundleDocument(JSON.stringify({ keys }), source).jwt
}

/** Throws ERR_SPIFFE_ID or ERR_BAD_REQUEST naming the trust domain. */
export function jwtBundlesOf({
  bundles,
}: JWTBundlesResponse): Map<TrustDomain, readonly TokenKey[]> {
  const read = Object.entries(bundles).map(([name, json]) => {
    const trustDomain = parseTrustDomain(name)
    const text = Buffer.from(json).toString()
    return [trustDomain, keysOf(text, `JWT bundle of ${trustDomain}`)] as const
  })
  return new Map(read)
}
