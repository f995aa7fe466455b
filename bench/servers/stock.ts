// Stock SPIRE programs as peers.
import { IdentityError } from '../../spiffe/errors.ts'
import { buildStock } from '../../test/interop/stock.ts'

/** Throws ERR_UNAVAILABLE: without them there is nothing to compare with. */
export async function stockPrograms(): Promise<{
  readonly agent: string
  readonly server: string
}> {
  const stock = await buildStock({ log: (line) => console.log(line) })
  if (stock.kind === 'built') return stock
  const message = `${stock.reason}; the peer is part of this benchmark`
  throw new IdentityError('ERR_UNAVAILABLE', message)
}
