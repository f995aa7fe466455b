// The border to Node's errors: which errno stands behind a failure.

/** Such as `ENOENT`; looks through causes; `unknown` when there is none. */
export function errnoOf(error: unknown): string {
  for (let it = error; it instanceof Error; it = it.cause) {
    if ('code' in it && typeof it.code === 'string') return it.code
  }
  return 'unknown'
}
