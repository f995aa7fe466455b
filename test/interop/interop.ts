// What `npm run interop` knows of a real client: its name, and how it is run.

export type Outcome =
  | { readonly kind: 'ok' }
  | { readonly kind: 'skipped'; readonly reason: string }

export interface Surroundings {
  /** for what a person wants to see, one line at a time */
  readonly log: (line: string) => void
}

/** `run` rejects when the client does not get along with us. */
export interface Interop {
  readonly name: string
  readonly run: (surroundings: Surroundings) => Promise<Outcome>
}
