// What an agent says of itself.
import { createClient } from '@connectrpc/connect'
import { openTransport } from '../../client/transport.ts'
import { AgentAdmin, type AgentStatus } from '../../proto/gen/castellan/workload/v1/admin_pb.js'

/** Asked over its admin socket. */
export async function agentStatus(path: string): Promise<AgentStatus> {
  using admin = openTransport({ kind: 'unix', path })
  return await createClient(AgentAdmin, admin.transport).getStatus({})
}
