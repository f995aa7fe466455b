// What the strict profile allows and a driven Envoy refuses, by the ids of the corpus, and why that is so.

/** asked: the agent decides; native: Envoy alone. */
export type Mode = 'asked' | 'native'

const slashes = 'Envoy refuses an escaped slash or backslash before anything is decided'
const forwarded = 'the guard refuses an X-Forwarded-For that is no list of addresses'

const ofBoth: Readonly<Record<string, string>> = {
  '0.N-decode.2': slashes,
  '45.47': slashes,
  '45.92': slashes,
}

export const differences: Readonly<Record<Mode, Readonly<Record<string, string>>>> = {
  asked: { ...ofBoth, '88.1': forwarded, '88.2': forwarded },
  native: ofBoth,
}
