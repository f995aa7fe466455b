// A workload that somebody else asks for, whatever it is referred to by.

/** A workload as long as somebody asks for it; structurally a Subject of the Workload API. */
export interface ReferredWorkload extends AsyncDisposable {
  attest(): Promise<{
    readonly selectors: ReadonlySet<string>
    readonly failed: ReadonlySet<string>
  }>
  isAlive(): boolean
  onChange(listener: () => void): Disposable
}
