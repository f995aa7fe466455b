// The identity this sidecar speaks as: key, certificate and bundles, always one version.
import type { OwnSvid, X509Context, X509Source } from '../client/x509-source.ts'
import { createVerifier, type Verify } from '../decisions/verifier.ts'
import type { Clock } from '../runtime/clock.ts'
import { createTopic } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { parseCertificate, type Serial } from '../spiffe/certificate.ts'
import type { SpiffeId } from '../spiffe/id.ts'

export interface Identity {
  readonly svid: OwnSvid
  /** milliseconds from notBefore to notAfter */
  readonly life: number
  readonly verify: Verify
}

export interface Identities extends Disposable {
  /** undefined while there is none, or it has expired: nothing is presented and no one is let in */
  current(): Identity | undefined
  /** called after each change */
  subscribe(listener: (identity: Identity | undefined) => void): Disposable
  /** how often another certificate was put to use */
  readonly rotations: number
}

export interface IdentityOptions {
  /** which SVID; the first when left out */
  readonly wanted: SpiffeId | undefined
  readonly log: Log
  readonly clock: Clock
}

function lifeOf({ chain: [first], notAfter }: OwnSvid): number {
  return first === undefined ? 0 : notAfter - parseCertificate(first).notBefore
}

export function followIdentity(
  source: Pick<X509Source, 'current' | 'subscribe'>,
  { wanted, log, clock }: IdentityOptions,
): Identities {
  const topic = createTopic<Identity | undefined>()
  let current: Identity | undefined
  let serial: Serial | undefined
  let rotations = 0

  function identityOf(context: X509Context | undefined): Identity | undefined {
    const svid =
      wanted === undefined ? context?.svids[0] : context?.svids.find(({ id }) => id === wanted)
    if (context === undefined || svid === undefined) {
      log.warn({ identity: wanted }, 'no identity: nothing is let in or out')
      return undefined
    }
    return { svid, life: lifeOf(svid), verify: createVerifier(context.bundles, clock) }
  }

  function take(context: X509Context | undefined): void {
    current = identityOf(context)
    if (current !== undefined) {
      if (serial !== undefined && serial !== current.svid.serial) rotations++
      serial = current.svid.serial
      const { id, notAfter } = current.svid
      log.info({ id, serial, notAfter: new Date(notAfter).toISOString() }, 'identity in use')
    }
    topic.publish(current)
  }

  take(source.current())
  const subscription = source.subscribe(take)
  return {
    current: () =>
      current !== undefined && clock.now() <= current.svid.notAfter ? current : undefined,
    subscribe: (listener) => topic.subscribe(listener),
    get rotations() {
      return rotations
    },
    [Symbol.dispose]: () => subscription[Symbol.dispose](),
  }
}
