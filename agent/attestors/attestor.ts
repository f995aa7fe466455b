// How this node shows the authority which node it is. One way is configured; what it means is the
// authority's business (ca/attestors).

export interface NodeAttestor {
  /** the authority's name for it */
  readonly type: string
  /** What is said first. Throws ERR_CONFIG when it is not there. */
  payload(): Uint8Array
  /** Answers the authority's challenge; undefined for a way that has none. */
  readonly respond: ((challenge: Uint8Array) => Uint8Array) | undefined
  /** Whether the same evidence is good again: such an agent renews by attesting again. */
  readonly isRepeatable: boolean
}
