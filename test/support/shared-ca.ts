// One authority for all tests of a file, with the ways in that its callers have.
import { afterAll, beforeAll } from 'vitest'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { startTestCa, type TestCa, type TestCaOptions } from './ca.ts'
import {
  attest,
  type Connection,
  type Credential,
  connectLocally,
  connectTls,
  rootsOf,
} from './ca-client.ts'

export interface SharedCa extends Pick<TestCa, 'running' | 'lines' | 'folder'> {
  /** over the local socket, as an administrator */
  readonly local: Connection
  /** what it published at the start, as PEM */
  readonly roots: string
  /** over TLS */
  remote(credential?: Credential): Connection
  newToken(): Promise<string>
  /** A new agent, by a token. */
  join(): Promise<Credential & { id: string }>
}

/** Starts it before the first test of the file and stops it after the last. */
export function sharedCa(
  options: () => TestCaOptions | Promise<TestCaOptions> = () => ({}),
): SharedCa {
  let ca: TestCa
  let local: Connection
  let roots: string
  beforeAll(async () => {
    ca = await startTestCa(await options())
    local = connectLocally(ca.running.socket)
    roots = await rootsOf(ca.running.socket)
  })
  afterAll(async () => {
    local[Symbol.dispose]()
    await ca[Symbol.asyncDispose]()
  })
  const remote = (credential?: Credential) => connectTls(ca.running.port, roots, credential)
  const newToken = async () => (await local.client(Agent).createJoinToken({ ttl: 60 })).value
  return {
    get running() {
      return ca.running
    },
    get folder() {
      return ca.folder
    },
    get lines() {
      return ca.lines
    },
    get local() {
      return local
    },
    get roots() {
      return roots
    },
    remote,
    newToken,
    async join() {
      using connection = remote()
      return await attest(connection, await newToken())
    },
  }
}
