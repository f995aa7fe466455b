// The services of the authority, as whoever connects to it is told of them.
import { describe, expect, it } from 'vitest'
import { callersOf } from '../../ca/callers.ts'
import { ServerReflection } from '../../proto/gen/grpc/reflection/v1/reflection_pb.js'
import { sharedCa } from '../support/shared-ca.ts'

const ca = sharedCa()

async function servicesByReflection(): Promise<readonly string[]> {
  async function* question() {
    yield { messageRequest: { case: 'listServices', value: '*' } as const }
  }
  const answers = ca.local.client(ServerReflection).serverReflectionInfo(question())
  for await (const { messageResponse } of answers)
    if (messageResponse.case === 'listServicesResponse')
      return messageResponse.value.service.map(({ name }) => name)
  throw new Error('no list')
}

describe('the authority', () => {
  it('tells by reflection of every service that somebody may call, health too', async () => {
    const callable = Object.keys(callersOf).map((method) => method.split('/')[0])
    // served where it is configured only
    const always = callable.filter((name) => !name?.startsWith('istio.'))
    expect(new Set(await servicesByReflection())).toEqual(new Set(always))
  })
})
