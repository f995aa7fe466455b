// The Huffman code of HPACK (RFC 7541 Appendix B). It is canonical, so lengths are all there is to know: codes of
// one length follow each other in the order of their symbols, and those of the next length come after them.

/** bits of the code of each byte, and last of the end of a string */
export const lengths: readonly number[] = [
  [13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28],
  [28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28],
  [6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6],
  [5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10],
  [13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7],
  [7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6],
  [15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5],
  [6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28],
  [20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23],
  [24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24],
  [22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23],
  [21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23],
  [26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25],
  [19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27],
  [20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23],
  [26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26],
  [30],
].flat()

const endOfString = 256
const longest = 30

/** For each length: its first code, and which of the symbols in their order has it. */
const first: number[] = []
const offset: number[] = []
const counts: number[] = []
const symbols: number[] = []

let code = 0
for (let length = 0; length <= longest; length++) {
  const its = lengths.flatMap((it, symbol) => (it === length && length > 0 ? [symbol] : []))
  first.push(code)
  offset.push(symbols.length)
  counts.push(its.length)
  symbols.push(...its)
  code = (code + its.length) * 2
}

/** Undefined for what no encoder writes: padding that is long or has a zero, or the end of a string inside. */
export function decodeHuffman(bytes: Uint8Array, from: number, to: number): string | undefined {
  let text = ''
  let value = 0
  let bits = 0
  for (let at = from; at < to; at++) {
    const byte = bytes[at] ?? 0
    for (let bit = 7; bit >= 0; bit--) {
      value = value * 2 + ((byte >> bit) & 1)
      bits++
      const index = value - (first[bits] ?? 0)
      if (index >= (counts[bits] ?? 0)) {
        if (bits === longest) return undefined
        continue
      }
      const symbol = symbols[(offset[bits] ?? 0) + index] ?? endOfString
      if (symbol === endOfString) return undefined
      text += String.fromCharCode(symbol)
      value = 0
      bits = 0
    }
  }
  return bits < 8 && value === 2 ** bits - 1 ? text : undefined
}
