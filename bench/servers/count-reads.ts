// Loaded into an authority before its own code (`node --import`): how often it reads its store. Answers
// any message with the number so far.
import { StatementSync } from 'node:sqlite'

let reads = 0
for (const name of ['get', 'all', 'iterate']) {
  const original: unknown = Reflect.get(StatementSync.prototype, name)
  if (typeof original !== 'function') throw new TypeError(`node:sqlite has no ${name}`)
  Reflect.set(StatementSync.prototype, name, function read(this: unknown, ...values: unknown[]) {
    reads++
    return Reflect.apply(original, this, values)
  })
}

process.on('message', () => process.send?.(reads))
// it ends when its own work does
process.channel?.unref()
