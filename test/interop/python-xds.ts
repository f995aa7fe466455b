// Debian's python3-grpcio, which is gRPC's C-core: proxyless programs that our agent configures.
import { execFile } from 'node:child_process'
import { realpathSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { lastLine } from './go.ts'
import { walkGrpc } from './grpc-xds.ts'
import type { Interop } from './interop.ts'

const run = promisify(execFile)
// Debian's own: another one on the PATH does not see its packages
const python = '/usr/bin/python3'

export const pythonXds: Interop = {
  name: 'python-xds',
  async run({ log }) {
    try {
      const { stdout } = await run(python, ['-c', 'import grpc; print(grpc.__version__)'])
      log(`grpcio ${stdout.trim()}`)
    } catch (error) {
      return { kind: 'skipped', reason: `python3-grpcio is not installed: ${lastLine(error)}` }
    }
    const program = {
      interpreter: realpathSync(python),
      script: join(import.meta.dirname, 'xds/program.py'),
      environment: {
        // under another name it does not find its library
        PYTHONHOME: '/usr',
        GRPC_XDS_EXPERIMENTAL_RBAC: 'true',
      },
    }
    await walkGrpc(program, log)
    return { kind: 'ok' }
  },
}
