// The keys of JWT-SVIDs as any JWT library reads them: a JWK Set without `use`, of which they know `sig` only.
import { formatBundleDocument, type TokenKey } from '../../spiffe/bundle-document.ts'

const nothing = { x509: [], wit: [], sequence: undefined, refreshHint: undefined } as const

export function plainJwks(jwt: readonly TokenKey[]): string {
  const document: { readonly keys: readonly object[] } = JSON.parse(
    formatBundleDocument({ ...nothing, jwt }),
  )
  return JSON.stringify({ keys: document.keys.map((key) => ({ ...key, use: undefined })) })
}
