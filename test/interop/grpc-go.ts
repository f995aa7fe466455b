// grpc-go against runtime/grpc: the Go program walks its list over TLS and over a unix socket.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Echo } from '../../proto/gen/castellan/test/v1/echo_pb.js'
import { healthService } from '../../runtime/grpc/health.ts'
import { reflectionServices } from '../../runtime/grpc/reflection.ts'
import type { GrpcServerOptions } from '../../runtime/grpc/server.ts'
import { echoService, startEcho } from '../support/echo.ts'
import { makeTestTls } from '../support/test-tls.ts'
import { buildGo, runProgram } from './go.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

interface Way {
  readonly name: string
  readonly options: Partial<GrpcServerOptions<string>>
  readonly address: (server: { address: string; port: number }) => string
  readonly args: readonly string[]
}

/** One run of the program against one server, which it asks to drain at the end. */
async function runOnce(program: string, way: Way, log: Surroundings['log']): Promise<void> {
  const held = Promise.withResolvers<void>()
  const draining = Promise.withResolvers<void>()
  const failures: string[] = []
  const { server } = await startEcho({
    limits: { messageBytes: 1 << 20 },
    drainTimeout: 60_000,
    services: [
      echoService(),
      healthService((service) => (service === '' ? 'serving' : 'unknown')),
      ...reflectionServices<string>([Echo]),
    ],
    authorize: async ({ metadata }) => {
      if (!metadata.has('until-drain')) return
      held.resolve()
      await draining.promise
    },
    ...way.options,
  })
  let drained: Promise<void> | undefined
  async function drain() {
    await held.promise
    // one connection for all of it: nothing that went before has poisoned it
    if (server.connections !== 1) failures.push(`${server.connections} connections instead of 1`)
    if (server.openStreams !== 41) failures.push(`${server.openStreams} streams instead of 41`)
    const done = server.drain()
    draining.resolve()
    await done
  }
  const args = ['-address', way.address(server), ...way.args]
  try {
    await runProgram(program, args, (line) => {
      if (line === 'DRAIN') drained = drain()
      else log(`${way.name}: ${line}`)
      if (line.startsWith('not ok')) failures.push(line)
    })
  } catch (error) {
    failures.push(String(error))
  } finally {
    draining.resolve()
    await Promise.all([drained, server.drain()])
  }
  if (server.openStreams !== 0) failures.push(`${server.openStreams} streams left`)
  if (failures.length > 0)
    throw new Error(failures.map((line) => `${way.name}: ${line}`).join('; '))
}

async function run(surroundings: Surroundings): Promise<Outcome> {
  const program = await buildGo('grpc-go', surroundings)
  if (program.kind === 'skipped') return program
  const folder = mkdtempSync(join(tmpdir(), 'castellan-interop-'))
  try {
    const { ca, cert, key } = await makeTestTls()
    const roots = join(folder, 'ca.pem')
    writeFileSync(roots, ca)
    const path = join(folder, 'echo.sock')
    const ways: readonly Way[] = [
      {
        name: 'tls',
        options: { tls: { cert, key } },
        address: ({ port }) => `localhost:${port}`,
        args: ['-ca', roots],
      },
      {
        name: 'unix',
        options: { listen: { path, mode: 0o600 } },
        address: () => `unix:${path}`,
        args: [],
      },
    ]
    for (const way of ways) await runOnce(program.path, way, surroundings.log)
    return { kind: 'ok' }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

export const grpcGo: Interop = { name: 'grpc-go', run }
