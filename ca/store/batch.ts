// Collects what is written in one turn of the event loop, so that many callers share one statement.

/** Returns a function whose calls of one turn are handed to `flush` together; all settle as it does. */
export function createBatch<T>(
  flush: (items: readonly T[]) => Promise<void>,
): (item: T) => Promise<void> {
  let items: T[] = []
  let done: Promise<void> | undefined
  return (item) => {
    items.push(item)
    done ??= new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
      const batch = items
      items = []
      done = undefined
      return flush(batch)
    })
    return done
  }
}
