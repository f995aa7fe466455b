// castellan entry label
import { createClient } from '@connectrpc/connect'
import { Labels } from '../../proto/gen/castellan/entry/v1/labels_pb.js'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer } from '../context.ts'
import { labelText } from '../entry-labels.ts'
import { optionsOf, type Register } from '../register.ts'
import { atAuthority, socketOption, withAuthority } from '../sockets.ts'

interface LabelChange {
  readonly set: Record<string, string>
  readonly remove: string[]
}

/** `key=value` sets, `key-` removes. Throws ERR_BAD_REQUEST naming the argument. */
function changeOf(texts: readonly (string | undefined)[]): LabelChange {
  const set = new Map<string, string>()
  const remove: string[] = []
  for (const text of texts) {
    const [, key = '', value = ''] = /^([^=]+)=(.*)$/s.exec(text ?? '') ?? []
    const [, removed] = /^([^=]+)-$/s.exec(text ?? '') ?? []
    if (key !== '' && set.has(key))
      throw new IdentityError('ERR_BAD_REQUEST', `label ${key} is given twice`)
    if (key !== '') set.set(key, value)
    else if (removed !== undefined) remove.push(removed)
    else
      throw new IdentityError(
        'ERR_BAD_REQUEST',
        `${JSON.stringify(text)}: write key=value to set a label, key- to remove one`,
      )
  }
  return { set: Object.fromEntries(set), remove }
}

export function entryLabelCommand(register: Register): void {
  register({
    noun: 'entry',
    verb: 'label',
    about:
      'Sets (key=value) and removes (key-) labels of an entry: what selector.matchLabels of policies asks for.',
    positional: ['<id>', '<change...>'],
    options: [socketOption],
    run: (context, given) => {
      const [entryId = '', ...changes] = given.args
      const change = changeOf(changes)
      return withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const client = createClient(Labels, transport)
        const { labels } = await client.updateLabels({ entryId, ...change })
        answer(context, { id: entryId, labels }, () =>
          Object.keys(labels).length === 0
            ? `entry ${entryId} has no labels`
            : `entry ${entryId}: ${labelText(labels)}`,
        )
        return 0
      })
    },
  })
}
