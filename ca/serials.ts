// Serial numbers: 126 random bits each, drawn from the kernel's generator by the page, because one small
// draw costs as much as a tenth of a signature.
import { randomFillSync } from 'node:crypto'

const length = 16
const inStock = 256

/** Each call gives 16 bytes that were never given before and are kept nowhere. */
export function createSerials(): () => Uint8Array {
  const stock = Buffer.alloc(length * inStock)
  let at = stock.length
  return () => {
    if (at === stock.length) {
      randomFillSync(stock)
      at = 0
    }
    const serial = new Uint8Array(stock.subarray(at, at + length))
    at += length
    // the highest bit clear and the next one set: positive, and always 16 bytes long
    serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40
    return serial
  }
}
