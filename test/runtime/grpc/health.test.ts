import { createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { expect, test } from 'vitest'
import {
  Health,
  HealthCheckResponse_ServingStatus as Status,
} from '../../../proto/gen/grpc/health/v1/health_pb.js'
import { healthService, type Serving } from '../../../runtime/grpc/health.ts'
import { startEcho } from '../../support/echo.ts'
import { createFakeClock } from '../../support/fake-clock.ts'

const known = new Map<string, Serving>([
  ['', 'serving'],
  ['a.B', 'not serving'],
])
const serving = (service: string) => known.get(service) ?? 'unknown'

async function start(options = {}) {
  const services = [healthService<string>(serving, { services: ['a.B'], ...options })]
  const echo = await startEcho({ services })
  const baseUrl = `http://${echo.server.address}`
  return { echo, client: createClient(Health, createGrpcTransport({ baseUrl })) }
}

test('check says what is served and knows no other', async () => {
  const { echo, client } = await start()
  await using _ = echo
  expect(await client.check({})).toMatchObject({ status: Status.SERVING })
  expect(await client.check({ service: 'a.B' })).toMatchObject({ status: Status.NOT_SERVING })
  await expect(client.check({ service: 'x' })).rejects.toMatchObject({
    code: 5,
    rawMessage: 'no such service',
  })
})

test('list names all', async () => {
  const { echo, client } = await start()
  await using _ = echo
  expect((await client.list({})).statuses).toMatchObject({
    '': { status: Status.SERVING },
    'a.B': { status: Status.NOT_SERVING },
  })
})

test('watch tells each change once', async () => {
  const clock = createFakeClock()
  const { echo, client } = await start({ clock })
  await using _ = echo
  const seen: Status[] = []
  for await (const { status } of client.watch({ service: 'later' })) {
    seen.push(status)
    if (seen.length === 3) break
    known.set('later', seen.length === 1 ? 'serving' : 'not serving')
    await clock.asleep()
    await clock.advance(1000)
  }
  expect(seen).toEqual([Status.SERVICE_UNKNOWN, Status.SERVING, Status.NOT_SERVING])
})
