// What one xDS stream was told and what became of it, for who watches: each response is sent, then taken,
// refused, or overtaken by a newer one. Sent to taken is a span.
import type { Span, Tracer } from '../../runtime/tracing/span.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { AgentCounts, PushOutcome, XdsApi } from '../counts.ts'
import type { Kind } from '../proxies/ledger.ts'

export interface Pushes extends Disposable {
  sent(kind: Kind): void
  /** The newest that was sent was taken whole. */
  taken(kind: Kind): void
  refused(kind: Kind): void
}

/** Whoever watches; nobody does what is left out. */
export interface Watching {
  readonly counts?: Pick<AgentCounts, 'pushes'> | undefined
  readonly tracer?: Tracer | undefined
}

/** `pid` is that of the proxy. */
export function createPushes(api: XdsApi, pid: number, { counts, tracer }: Watching): Pushes {
  const open = new Map<Kind, Span>()
  const count = (kind: Kind, outcome: PushOutcome) => counts?.pushes.add({ api, kind, outcome })
  function end(kind: Kind, error?: IdentityError): void {
    open.get(kind)?.end(error)
    open.delete(kind)
  }
  return {
    sent(kind) {
      count(kind, 'sent')
      end(kind, new IdentityError('ERR_CONFLICT', 'a newer one was sent before it was taken'))
      if (tracer?.isOn !== true) return
      const attributes = {
        'castellan.xds.api': api,
        'castellan.xds.kind': kind,
        'process.pid': pid,
      }
      open.set(kind, tracer.begin('xds.push', { attributes }))
    },
    taken(kind) {
      count(kind, 'taken')
      end(kind)
    },
    refused(kind) {
      count(kind, 'refused')
      end(kind, new IdentityError('ERR_BAD_REQUEST', 'the proxy refused it; its log says why'))
    },
    [Symbol.dispose]() {
      for (const kind of [...open.keys()])
        end(kind, new IdentityError('ERR_CANCELLED', 'the proxy has gone'))
    },
  }
}
