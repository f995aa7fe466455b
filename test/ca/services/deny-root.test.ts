// A root on the deny-list, once nothing is signed by it any more: whoever has it no longer has nothing to deny.
import { expect, it } from 'vitest'
import { DenyRules } from '../../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { LocalAuthority } from '../../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { sharedCa } from '../../support/shared-ca.ts'

const ca = sharedCa()

it('is told from an authority below ours', async () => {
  const authorities = ca.local.client(LocalAuthority)
  const { active } = await authorities.getX509AuthorityState({})
  const authorityId = active?.authorityId ?? ''
  const { preparedAuthority } = await authorities.prepareX509Authority({})
  await authorities.activateX509Authority({ authorityId: preparedAuthority?.authorityId ?? '' })
  await authorities.taintX509Authority({ authorityId })
  const rule = { target: { case: 'authorityId', value: authorityId } as const }
  const { root, issuedTo } = await ca.local.client(DenyRules).addRule({ rule })
  expect([root, issuedTo]).toEqual([true, ''])
})
