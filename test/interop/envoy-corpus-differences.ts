// What the strict profile allows and a driven Envoy refuses, whoever decides: ids of the corpus, and why that is so.
const slashes = 'Envoy refuses an escaped slash or backslash before anything is decided'
const forwarded = 'the guard refuses an X-Forwarded-For that is no list of addresses'

export const differences: Readonly<Record<string, string>> = {
  '0.N-decode.2': slashes,
  '45.47': slashes,
  '45.92': slashes,
  '88.1': forwarded,
  '88.2': forwarded,
}
