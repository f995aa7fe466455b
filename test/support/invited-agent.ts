// What an agent of example.org needs before it joins an authority, as files in one folder.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { connectLocally, rootsOf } from './ca-client.ts'

const trustDomain = 'example.org'

/** `token` and `bundle.pem`, by the authority's local socket; the token is for the agent `path`, if it is named. */
export async function invite(socket: string, folder: string, path?: string): Promise<string> {
  using local = connectLocally(socket)
  const agentId = path === undefined ? {} : { agentId: { trustDomain, path } }
  const { value } = await local.client(Agent).createJoinToken({ ttl: 600, ...agentId })
  writeFileSync(join(folder, 'token'), value)
  writeFileSync(join(folder, 'bundle.pem'), await rootsOf(socket))
  return value
}

/** `agent.yaml`, whose path it gives, for an authority on that port; `more` are further keys. */
export function writeAgentConfig(folder: string, port: number, more: object = {}): string {
  const file = join(folder, 'agent.yaml')
  const content = {
    trustDomain,
    authority: { address: `127.0.0.1:${port}`, bundle: 'bundle.pem' },
    joinTokenFile: 'token',
    state: 'agent',
    socket: 'run/agent.sock',
    adminSocket: 'admin/agent-admin.sock',
    ...more,
  }
  writeFileSync(file, stringify(content))
  return file
}
