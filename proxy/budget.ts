// How much may be under way of one outbound listener: requests, and the share of them that is asked again, so that
// retries never become a storm of their own.

export interface Budget {
  /** Takes a request in until the returned function is called; undefined when there are too many. */
  enter(): (() => void) | undefined
  /** The same for asking one of them again. */
  again(): (() => void) | undefined
}

// as Envoy's retry budget: a fifth of what is under way, and always so many
const share = 0.2
const always = 3

function createCount(): { readonly size: number; take(): () => void } {
  let size = 0
  return {
    get size() {
      return size
    },
    take() {
      let isOver = false
      size++
      return () => {
        if (!isOver) size--
        isOver = true
      }
    },
  }
}

/** `most` requests at once. */
export function createBudget(most = Number.POSITIVE_INFINITY): Budget {
  const [requests, repeated] = [createCount(), createCount()]
  return {
    enter: () => (requests.size < most ? requests.take() : undefined),
    again() {
      const allowed = Math.max(always, Math.floor(requests.size * share))
      return repeated.size < allowed ? repeated.take() : undefined
    },
  }
}
