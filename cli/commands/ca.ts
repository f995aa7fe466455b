// castellan ca init, run, backup, restore

import { createClient } from '@connectrpc/connect'
import { z } from 'zod'
import { restoreBackup } from '../../ca/backup.ts'
import { loadCaConfig } from '../../ca/config.ts'
import { runAuthority } from '../../ca/main.ts'
import { demandInitialised, openAuthority } from '../../ca/open.ts'
import { isInitialised, prepareState } from '../../ca/state-folder.ts'
import { type BackupPiece, Records } from '../../proto/gen/castellan/records/v1/records_pb.js'
import { writeStreamDurably } from '../../runtime/durable.ts'
import { fingerprintOf } from '../../spiffe/certificate.ts'
import { answer } from '../context.ts'
import { flag, optionsOf, type Register, text } from '../register.ts'
import { lifeOption, logFor, untilStopped } from '../run.ts'
import { atAuthority, socketOption, withAuthority } from '../sockets.ts'

const configOption = ['-c, --config <file>', 'ca.yaml', 'ca.yaml'] as const
const toFile = atAuthority.extend({ to: text })
const fromFile = z.object({ config: text, from: text })

async function* bytesOf(pieces: AsyncIterable<BackupPiece>): AsyncGenerator<Uint8Array> {
  for await (const { bytes } of pieces) yield bytes
}

const withConfig = z.object({ config: text, exitWithStdin: flag })

export function caCommands(register: Register): void {
  register({
    noun: 'ca',
    verb: 'init',
    about: 'Makes the state folder, the key file if one is configured, and the first authority.',
    options: [configOption],
    async run(context, given) {
      const { config: file } = optionsOf(given, withConfig)
      const config = loadCaConfig(file)
      const started = Date.now()
      if (!isInitialised(config)) prepareState(config)
      await using authority = await openAuthority(config, { log: logFor('ca', 'warn') })
      const newest = authority.authorities.own().at(-1)
      const isNew = (newest?.preparedAt ?? 0) >= started
      const fingerprint = `sha256:${fingerprintOf(newest?.material ?? new Uint8Array())}`
      const { replica } = authority.store
      const shared = replica === '' ? {} : { replica, state: newest?.state }
      const made = { created: isNew, trustDomain: config.trustDomain, fingerprint, ...shared }
      answer(context, made, () => {
        const which = replica === '' ? '' : ` (replica ${replica}, ${newest?.state})`
        const what = isNew ? `is ready${which}` : 'was initialised before; nothing was changed'
        return `the authority of ${config.trustDomain} ${what}\npin for agents: ${fingerprint}\nnext: castellan ca run --config ${file}`
      })
      return 0
    },
  })
  register({
    noun: 'ca',
    verb: 'run',
    about: 'Runs the authority until it is stopped.',
    options: [configOption, lifeOption],
    async run(context, given) {
      const { config: file, exitWithStdin = false } = optionsOf(given, withConfig)
      const config = loadCaConfig(file)
      demandInitialised(config, file)
      await using _ = await runAuthority(config, {
        log: logFor('ca', config.logLevel),
        signal: context.signal,
      })
      await untilStopped(context, { withStdin: exitWithStdin })
      return 0
    },
  })
  backupCommands(register)
}

function backupCommands(register: Register): void {
  register({
    noun: 'ca',
    verb: 'backup',
    about: 'Writes a backup of a running authority: its store and its sealed keys, as one file.',
    options: [['--to <file>', 'the file to write'], socketOption],
    run: (context, given) => {
      const { to, socket } = optionsOf(given, toFile)
      return withAuthority(context, socket, async (transport) => {
        const pieces = createClient(Records, transport).backup({}, { signal: context.signal })
        await writeStreamDurably(to, bytesOf(pieces), { mode: 0o600 })
        answer(
          context,
          { file: to },
          () => `${to} holds the authority; keep what opens its keys elsewhere, it is not in it`,
        )
        return 0
      })
    },
  })
  register({
    noun: 'ca',
    verb: 'restore',
    about: 'Makes the state folder of an authority from a backup.',
    options: [configOption, ['--from <file>', 'the backup']],
    async run(context, given) {
      const { config: file, from } = optionsOf(given, fromFile)
      const config = loadCaConfig(file)
      const restored = restoreBackup(config, from)
      const { entries, agents, authorities } = restored
      answer(
        context,
        restored,
        () =>
          `restored ${entries} entries, ${agents} agents, ${authorities} authorities\nagents that joined or renewed since have to join again; bans and deny rules since are lost\nnext: castellan ca run --config ${file}`,
      )
      return 0
    },
  })
}
