// Tokens that make an order unskippable: a brand for the compiler, a private WeakSet for the runtime.

declare const brand: unique symbol

/** A value that only the mint of that name can have made. */
export type Minted<Name extends string, T extends object> = T & { readonly [brand]: Name }

export interface Mint<Name extends string, T extends object> {
  mint(value: T): Minted<Name, T>
  /** Throws TypeError for what was not minted here or was spent before. */
  spend(token: Minted<Name, T>): void
  /** Throws TypeError for what was not minted here; spends nothing. */
  check(token: Minted<Name, T>): void
}

// A token may be looked at many times, and spent once.
export function createMint<Name extends string, T extends object>(name: Name): Mint<Name, T> {
  const fresh = new WeakSet<object>()
  return {
    mint(value) {
      // frozen, not copied: whoever minted it has no other name for it
      const token = Object.freeze(value)
      fresh.add(token)
      return token as Minted<Name, T>
    },
    check(token) {
      if (!fresh.has(token)) throw new TypeError(`a ${name} that is forged or already spent`)
    },
    spend(token) {
      if (!fresh.delete(token)) throw new TypeError(`a ${name} that is forged or already spent`)
    },
  }
}
