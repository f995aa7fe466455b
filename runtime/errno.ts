// The border to Node's errors: which errno stands behind a failure.

/** The socket or address that a failed connection was to; undefined when no cause says it. */
export function peerOfFailure(error: unknown): string | undefined {
  for (let it = error; it instanceof Error; it = it.cause) {
    // a unix socket's path stands in `address`, without a port
    if (!('address' in it) || typeof it.address !== 'string') continue
    return 'port' in it && typeof it.port === 'number' ? `${it.address}:${it.port}` : it.address
  }
  return undefined
}

/** Such as `ENOENT`; looks through causes; `unknown` when there is none. */
export function errnoOf(error: unknown): string {
  for (let it = error; it instanceof Error; it = it.cause) {
    if ('code' in it && typeof it.code === 'string') return it.code
  }
  return 'unknown'
}
