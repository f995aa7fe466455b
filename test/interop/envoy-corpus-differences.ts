export type Mode = 'asked' | 'native'

export interface Difference {
  readonly kind: 'rewritten' | 'refused'
  readonly why: string
}

export const differences: Readonly<Record<Mode, Readonly<Record<string, Difference>>>> = {
  asked: {},
  native: {},
}
