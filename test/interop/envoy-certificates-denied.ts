// The deny-list at a real Envoy: an identity, a certificate, and all that an authority has signed.
import { createClient } from '@connectrpc/connect'
import { Authorities } from '../../proto/gen/castellan/authority/v1/authorities_pb.js'
import { DenyRules } from '../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { clientId, type DrivenEnvoy } from '../support/driven-envoy.ts'
import { type Presented, show } from '../support/odd-certificates.ts'
import { connectRaw, getRaw, type RawConnection } from '../support/raw-http1.ts'
import { eventually } from './eventually.ts'
import type { Surroundings } from './interop.ts'

type Door = ReturnType<typeof doorOf>
const doorOf = (it: DrivenEnvoy, svid: Presented, roots = it.roots()) => ({
  ...{ port: it.ports.inbound, svid, roots },
})

async function serves(door: Door): Promise<void> {
  const { status } = await getRaw(door, '/ok')
  if (status !== 200) throw new Error(`${status} instead of 200`)
}

/** Over new connections, and over `live` where it is given. */
async function untilRefused(it: DrivenEnvoy, door: Door, live?: RawConnection): Promise<void> {
  await eventually('new connections are refused', async () => {
    const before = it.reached.length
    const { status } = await getRaw(door, '/ok')
    if ((status !== 403 && status !== 0) || it.reached.length > before) {
      throw new Error(`it got in: ${status}`)
    }
  })
  if (live === undefined) return
  await eventually('its live connection is refused', async () => {
    const { status } = await live.get('/ok')
    if (status !== 403 && status !== 0) throw new Error(`it got in: ${status}`)
  })
}

type Target =
  | { readonly case: 'spiffeId'; readonly value: string }
  | { readonly case: 'serial'; readonly value: string }
  | { readonly case: 'authorityId'; readonly value: string }

/** While it is on the list; others go on. */
async function whileListed(it: DrivenEnvoy, target: Target, look: () => Promise<void>) {
  const rules = createClient(DenyRules, it.node.local)
  const { id } = await rules.addRule({ rule: { target, reason: 'a drill' } })
  await look()
  await rules.removeRule({ id })
}

async function deniesIdentity(it: DrivenEnvoy): Promise<void> {
  // who is denied hears nothing of its agent any more
  const roots = it.roots()
  const door = doorOf(it, show(it.node.signer, { id: clientId }), roots)
  const other = doorOf(it, show(it.node.signer, { id: `${clientId}/other` }), roots)
  using live = connectRaw(door)
  if ((await live.get('/ok')).status !== 200) throw new Error('it is refused before')
  await whileListed(it, { case: 'spiffeId', value: clientId }, async () => {
    await untilRefused(it, door, live)
    await serves(other)
  })
  await eventually('it may again', () => serves(door))
  await eventually('its agent gives it one again', async () => serves(doorOf(it, it.svid())))
}

/** The live connection where the agent is asked: Envoy alone looks at a certificate once. */
async function deniesSerial(it: DrivenEnvoy, isAsked: boolean): Promise<void> {
  const svid = it.svid()
  const door = doorOf(it, svid)
  using live = connectRaw(door)
  if ((await live.get('/ok')).status !== 200) throw new Error('it is refused before')
  await whileListed(it, { case: 'serial', value: svid.serial }, async () => {
    await untilRefused(it, door, isAsked ? live : undefined)
    await eventually('its successor may', async () => {
      if (it.svid().serial === svid.serial) throw new Error('there is none yet')
      await serves(doorOf(it, it.svid()))
    })
  })
}

/** Another authority signs, and what the old one has signed is denied while it is still in the bundle. */
async function deniesAuthority(it: DrivenEnvoy): Promise<void> {
  const authorities = createClient(Authorities, it.node.local)
  const local = createClient(LocalAuthority, it.node.local)
  const rules = createClient(DenyRules, it.node.local)
  const old = show(it.node.signer, { id: clientId })
  const before = it.svid().serial
  const { authorities: all } = await authorities.getStatus({})
  const active = all.find(({ kind, phase }) => kind === 'x509' && phase === 'active')?.id ?? ''
  const { preparedAuthority } = await local.prepareX509Authority({})
  const authorityId = preparedAuthority?.authorityId ?? ''
  await eventually('the next authority signs', () =>
    authorities.activate({ kind: 'x509', authorityId }),
  )
  await serves(doorOf(it, old))
  await local.taintX509Authority({ authorityId: active })
  const target = { case: 'authorityId', value: active } as const
  await eventually('the old authority is denied', () =>
    rules.addRule({ rule: { target, reason: 'a drill' } }),
  )
  await untilRefused(it, doorOf(it, old))
  await eventually('who is of the new authority may', async () => {
    if (it.svid().serial === before) throw new Error('there is no other certificate yet')
    await serves(doorOf(it, it.svid()))
  })
}

export async function deniesListed(it: DrivenEnvoy, { log }: Surroundings): Promise<void> {
  const isAsked = (await it.status()).proxies[0]?.remarks.length !== 0
  await deniesIdentity(it)
  log('ok a denied identity is refused, on a live connection as well, and no other one')
  await deniesSerial(it, isAsked)
  log('ok a denied certificate is refused, and its successor is not')
  await deniesAuthority(it)
  log('ok what a denied authority has signed is refused, and what another one has is not')
}
