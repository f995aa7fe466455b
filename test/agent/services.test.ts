// What an agent says of the services of its node, by a clock that the test moves.
import { create } from '@bufbuild/protobuf'
import { beforeEach, describe, expect, it } from 'vitest'
import { createProxyLedger } from '../../agent/proxies/ledger.ts'
import { createServices, type Services } from '../../agent/services.ts'
import { createLedger, type Ledger, type SidecarRecord } from '../../agent/sidecar/ledger.ts'
import { EndpointSchema } from '../../proto/gen/castellan/control/v1/control_pb.js'
import { SidecarServicesSchema } from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { createTopic } from '../../runtime/lifecycle.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { createFakeClock, type FakeClock } from '../support/fake-clock.ts'

const web = parseSpiffeId('spiffe://td/ns/shop/sa/web')
const address = '192.0.2.1:8443'
const served = { service: 'shop', spiffeId: web, address }

let clock: FakeClock
let ledger: Ledger
let services: Services
let told: { service: string; spiffeId: string; address: string }[]
const topic = createTopic<void>()

function serve(more: { wanted?: string[] } = {}): SidecarRecord {
  const record = ledger.open(web, 1)
  ledger.serves(record, create(SidecarServicesSchema, { served: [served], ...more }))
  return record
}

beforeEach(() => {
  clock = createFakeClock()
  ledger = createLedger()
  told = []
  services = createServices({
    configured: { ledger: ['127.0.0.1:1'] },
    knowledge: {
      endpoints: () => told.map((it) => create(EndpointSchema, it)),
      onChange: (listener) => topic.subscribe(listener),
    },
    proxies: createProxyLedger(),
    ...{ ledger, clock },
  })
})

describe('the services of a node', () => {
  it('are said to be all of them only once its proxies had time to find a new agent', async () => {
    await using _ = services.follow()
    const heard: boolean[] = []
    using __ = services.onChange(() => heard.push(services.said().whole === true))
    await clock.advance(14_000)
    expect(services.said().whole).toBe(false)
    await clock.advance(2_000)
    expect(services.said().whole).toBe(true)
    expect(heard.at(-1)).toBe(true)
  })

  it('stay for a moment when a proxy goes, and are not taken away when it is back by then', async () => {
    await using _ = services.follow()
    const first = serve({ wanted: ['ledger'] })
    await clock.advance(10)
    expect(services.said()).toMatchObject({ served: [served], wanted: ['ledger'] })
    ledger.close(first)
    await clock.advance(10)
    await clock.advance(4_000)
    expect(services.said().served).toEqual([served])
    const second = serve()
    await clock.advance(4_000)
    expect(services.said().served).toEqual([served])
    ledger.close(second)
    await clock.advance(10)
    await clock.advance(5_100)
    expect(services.said().served).toEqual([])
  })

  it('are reached where agent.yaml says, where the authority says, and where this node serves them', async () => {
    await using _ = services.follow()
    serve()
    told = [
      { service: 'shop', spiffeId: 'spiffe://td/ns/shop/sa/other', address: '[2001:db8::1]:1' },
      { ...served },
      { service: 'shop', spiffeId: 'no id', address: '192.0.2.3:1' },
      { service: 'shop', spiffeId: web, address: 'no address' },
      { service: 'elsewhere', spiffeId: web, address: '192.0.2.4:1' },
    ]
    await clock.advance(10)
    expect(Object.fromEntries(services.of(['shop']))).toEqual({
      ledger: [{ host: '127.0.0.1', port: 1, id: undefined }],
      shop: [
        { host: '192.0.2.1', port: 8443, id: web },
        { host: '2001:db8::1', port: 1, id: 'spiffe://td/ns/shop/sa/other' },
      ],
    })
  })
})
