// Whether the path of a socket still leads to who bound it: the next agent takes it over, and a file can be taken away.
import { type Stats, statSync } from 'node:fs'

export type Hold = 'listening' | 'taken over' | 'lost'

const fileAt = (path: string): Stats | undefined => statSync(path, { throwIfNoEntry: false })

/** Of whoever has bound `path` just now. A file that is bound keeps its inode, under whatever name. */
export function createHold(path: string): () => Hold {
  const bound = fileAt(path)
  return () => {
    const there = fileAt(path)
    if (there === undefined) return 'lost'
    return there.ino === bound?.ino && there.dev === bound.dev ? 'listening' : 'taken over'
  }
}
