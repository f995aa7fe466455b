// The real Envoy that benchmarks load, and when requests get through.
import { setTimeout as delay } from 'node:timers/promises'
import { IdentityError } from '../../spiffe/errors.ts'
import { findEnvoy } from '../../test/support/envoy.ts'
import { getRaw, type RawOptions } from '../../test/support/raw-http1.ts'

/** Its path. Throws ERR_UNAVAILABLE: without it there is nothing to measure. */
export async function envoyProgram(bench: string): Promise<string> {
  const envoy = await findEnvoy((line) => console.error(`${bench}: ${line}`))
  if (envoy.kind === 'missing') throw new IdentityError('ERR_UNAVAILABLE', envoy.reason)
  return envoy.path
}

/** Resolves once `/ok` is answered with 200; `door` is looked at anew for each try. */
export async function untilAllowed(door: () => RawOptions): Promise<void> {
  for (let look = 0; look < 1200; look++) {
    if ((await getRaw(door(), '/ok')).status === 200) return
    await delay(100)
  }
  const { port } = door()
  throw new IdentityError('ERR_UNAVAILABLE', `no request gets through at port ${port}`)
}
