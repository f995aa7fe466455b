// How long SVIDs live, as proxies are told: connections are aged by it.

/** of a life: the next one may be shorter by what whole seconds and the end of an authority take off */
const slack = 0.1

/** Lives that change little are one: with another age a listener closes all that it has. */
export function createLives(): (key: string, life: number) => number {
  const held = new Map<string, number>()
  return (key, life) => {
    const before = held.get(key)
    if (before !== undefined && before <= life && life < 2 * before) return before
    const next = Math.floor(life * (1 - slack))
    held.set(key, next)
    return next
  }
}
