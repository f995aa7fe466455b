// The WIT profile of the Workload API (§7, incubating): tokens that are bound to a key of their holder.
import { createPrivateKey } from 'node:crypto'
import { create, toBinary } from '@bufbuild/protobuf'
import {
  WITBundlesResponseSchema,
  WITSVIDResponseSchema,
} from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import type { AgentEntry } from '../entries.ts'
import type { Knowledge } from '../knowledge.ts'
import type { Session } from '../session.ts'
import { type HeldToken, type TokenCache, tokenKey } from '../token-svids.ts'
import { type Answer, federatedWith, hintsOf } from './entitled.ts'
import { entriesOf, jwksOf } from './jwt.ts'

export interface WitOptions {
  readonly knowledge: Knowledge
  readonly tokens: TokenCache
  readonly request: Session['requestWit']
}

/** The holder's key as a private JWK with the algorithm that the token names. */
function holderJwk({ holder }: HeldToken): string {
  const key = createPrivateKey({
    key: Buffer.from(holder ?? new Uint8Array()),
    format: 'der',
    type: 'pkcs8',
  })
  return JSON.stringify({ ...key.export({ format: 'jwk' }), alg: 'ES256' })
}

export type WitProfile = ReturnType<typeof witProfile>

export function witProfile({ knowledge, tokens, request }: WitOptions) {
  return {
    async svids(id: string, entries: readonly AgentEntry[]): Promise<Answer> {
      const hints = hintsOf(entries)
      const wanted = entriesOf(id, entries)
      const held = await Promise.all(
        wanted.map((entry) =>
          tokens.get(tokenKey('wit', entry), () => request({ entryId: entry.id })),
        ),
      )
      const encode = () => {
        const svids = wanted.map((entry, i) => {
          const token = held[i]
          return {
            spiffeId: entry.spiffeId,
            witSvid: token?.token ?? '',
            witSvidKey: token === undefined ? '' : holderJwk(token),
            hint: hints.get(entry.id) ?? '',
          }
        })
        return toBinary(WITSVIDResponseSchema, create(WITSVIDResponseSchema, { svids }))
      }
      const names = wanted.map(({ id }) => hints.get(id))
      const version = `wit ${held.map(({ token }) => token).join()} ${names.join()}`
      return { version, encode, until: Math.min(...held.map(tokens.dueAt)) }
    },
    bundles(entries: readonly AgentEntry[]): Answer {
      const own = [knowledge.bundle().trustDomain, knowledge.own()] as const
      const all = [own, ...federatedWith(entries, knowledge)]
      const bundles = Object.fromEntries(
        all.map(([name, { wit }]) => [`spiffe://${name}`, jwksOf({ wit })]),
      )
      const encode = () =>
        toBinary(WITBundlesResponseSchema, create(WITBundlesResponseSchema, { bundles }))
      return { version: `wit bundle ${JSON.stringify(bundles)}`, encode }
    },
  }
}
