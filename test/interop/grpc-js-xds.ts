// grpc-js-xds: proxyless programs on Node that our agent configures.
import { realpathSync } from 'node:fs'
import { join } from 'node:path'
import { walkGrpc } from './grpc-xds.ts'
import type { Interop } from './interop.ts'

export const grpcJsXds: Interop = {
  name: 'grpc-js-xds',
  async run({ log }) {
    const program = {
      interpreter: realpathSync(process.execPath),
      script: join(import.meta.dirname, 'xds/program.ts'),
      environment: { GRPC_XDS_EXPERIMENTAL_RBAC: 'true' },
    }
    await walkGrpc(program, log)
    return { kind: 'ok' }
  },
}
