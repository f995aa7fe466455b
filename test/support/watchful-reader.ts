// `node watchful-reader.ts FOLDER`: reads a set through its link, over and over, until standard input ends. It
// prints how many versions it saw, and what it saw that does not belong together.
import { readFileSync, realpathSync } from 'node:fs'
import { join } from 'node:path'

const [folder = ''] = process.argv.slice(2)
const seen = new Set<string>()
const wrong: string[] = []
let isOver = false
process.stdin.once('end', () => {
  isOver = true
})
process.stdin.resume()

const contentOf = (path: string) => / of (.*)\n/.exec(readFileSync(path, 'utf8'))?.[1] ?? 'nothing'

/** What a program sees that follows the link once, as one that keeps the folder open does. */
function look(): void {
  const at = realpathSync(join(folder, 'current'))
  try {
    const [key, cert, both] = ['key.pem', 'cert.pem', 'both.pem'].map((it) =>
      contentOf(join(at, it)),
    )
    if (key !== cert || both !== cert) wrong.push(`${key} ${cert} ${both}`)
    seen.add(String(cert))
  } catch {
    // slower than two rotations: it looks again
  }
  // one file: never half of it
  if (contentOf(join(folder, 'current', 'both.pem')) === 'nothing') wrong.push('half a file')
}

console.log('ready')
while (!isOver) {
  for (let i = 0; i < 50; i++) look()
  await new Promise((resolve) => setImmediate(resolve))
}
console.log(JSON.stringify({ seen: seen.size, wrong }))
