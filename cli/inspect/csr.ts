// A certificate request: whether the authority would take its key, and what it asks for.
import { proveCsr } from '../../ca/csr.ts'
import { namesInCsr, type RequestedNames } from '../../ca/csr-names.ts'
import { isSpiffeId, pathOf } from '../../spiffe/id.ts'
import { keyText } from './certificate.ts'
import { type Checks, finding, findingsOf, type Inspection, problemOf } from './finding.ts'

const proof = 'R18 well-formed, of an accepted key, and signed by that key'
const readable = 'it asks for URI and DNS names only'

const nameChecks: Checks<RequestedNames> = {
  'X5-1 one URI at most': ({ uris }) =>
    uris.length > 1 ? `it asks for ${uris.length} of them` : undefined,
  'X5-4 X5-19 a URI is a SPIFFE ID with a path': ({ uris }) => {
    const other = uris.find((uri) => !isSpiffeId(uri) || pathOf(uri) === '')
    return other === undefined ? undefined : `${JSON.stringify(other)} is none`
  },
}

export function inspectCsr(der: Uint8Array, where: string): Inspection {
  const kind = 'csr'
  const problem = problemOf(() => proveCsr(der))
  const nameProblem = problemOf(() => namesInCsr(der))
  const key = problem === undefined ? keyText(proveCsr(der).publicKey) : 'not accepted'
  const names = nameProblem === undefined ? namesInCsr(der) : undefined
  return {
    kind,
    where,
    what: problem === undefined ? 'a request that proves its key' : 'a request that proves nothing',
    // names of SVIDs come from registration entries, whatever a request asks for
    facts: { key, ...names },
    findings: [
      finding(proof, problem),
      finding(readable, nameProblem),
      ...(names === undefined ? [] : findingsOf(nameChecks, names)),
    ],
  }
}
