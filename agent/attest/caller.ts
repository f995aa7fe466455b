// A connection to the public socket and the process behind it, attested when it asks for something.
import type { Socket } from 'node:net'
import type { Log } from '../../runtime/log.ts'
import type { Knowledge } from '../knowledge.ts'
import type { IdentifyPeer, PeerProcess } from './peer-credentials.ts'
import type { Attestation, UnixAttestor } from './unix.ts'

export interface Caller extends Disposable {
  readonly process: PeerProcess
  /** Selectors as they are now. Throws ERR_DENIED once the process has ended. */
  attest(): Promise<Attestation>
  /** Called when its process has ended, or is not what it was when it was attested. */
  onChange(listener: () => void): Disposable
}

export interface CallersOptions {
  readonly identify: IdentifyPeer
  readonly attestor: UnixAttestor
  readonly knowledge: Knowledge
  readonly log: Log
}

/** Hashing a program costs a tenth of a second: done only when an entry asks for it. */
function asksForHash({ entries }: Knowledge): boolean {
  for (const { selectors } of entries.values()) {
    if (selectors.some((selector) => selector.startsWith('unix:sha256:'))) return true
  }
  return false
}

export function createCallers(options: CallersOptions): (socket: Socket) => Caller {
  const { identify, attestor, knowledge, log } = options
  return (socket) => {
    const process = identify(socket)
    let isTold = false
    return {
      process,
      async attest() {
        const result = await attestor.attest(process, { withHash: asksForHash(knowledge) })
        if (result.missing.length > 0 && !isTold) {
          isTold = true
          log.warn(
            { pid: process.pid, uid: process.uid, missing: result.missing },
            'selectors are absent',
          )
        }
        return result
      },
      onChange: () => ({ [Symbol.dispose]: () => {} }),
      [Symbol.dispose]: () => process[Symbol.dispose](),
    }
  }
}
