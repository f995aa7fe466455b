// Whether the path of a socket still leads to who bound it: the next agent takes it over, and a file can be taken away.
import { type Stats, statSync } from 'node:fs'

export type Hold = 'listening' | 'taken over' | 'lost'

/** Undefined also for what cannot be looked at: nobody connects there either. */
function fileAt(path: string): Stats | undefined {
  try {
    return statSync(path)
  } catch {
    return undefined
  }
}

/** Of whoever has bound `path` just now. A file that is bound keeps its inode, under whatever name. */
export function createHold(path: string): () => Hold {
  const bound = fileAt(path)
  return () => {
    const there = fileAt(path)
    if (there === undefined) return 'lost'
    return there.ino === bound?.ino && there.dev === bound.dev ? 'listening' : 'taken over'
  }
}
