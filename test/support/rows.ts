// Rows of the authority's store, ordinary but for what a test says.
import type { AgentRow, EntryRow } from '../../ca/store/model.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'

/** An attested agent of example.org that has no certificate yet. */
export function testAgent(name: string, change: Partial<AgentRow> = {}): AgentRow {
  return {
    id: parseSpiffeId(`spiffe://example.org/spire/agent/${name}`),
    attestationType: 'join_token',
    serial: '',
    pendingSerial: '',
    notAfter: 0,
    banned: false,
    canReattest: false,
    selectors: [],
    version: '',
    attestedAt: 0,
    ...change,
  }
}

/** An entry `spiffe://example.org/<id>` below agent `a`, for the user of uid 1000. */
export function testEntry(id: string, change: Partial<EntryRow> = {}): EntryRow {
  return {
    id,
    spiffeId: parseSpiffeId(`spiffe://example.org/${id}`),
    parentId: testAgent('a').id,
    selectors: [{ type: 'unix', value: 'uid:1000' }],
    x509SvidTtl: 0,
    jwtSvidTtl: 0,
    federatesWith: [],
    admin: false,
    downstream: false,
    expiresAt: 0,
    dnsNames: [],
    storeSvid: false,
    hint: '',
    disablePrefetch: false,
    includeJti: false,
    labels: {},
    revision: 0,
    createdAt: 0,
    ...change,
  }
}
