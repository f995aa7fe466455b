// `node doomed-agent.ts CONFIG STEP WHICH`: an agent that is killed before or behind saving its first SVID
// (`join`) or its second (`renewal`), or that says `ready` and waits to be killed (`never`).
import { loadAgentConfig } from '../../agent/config.ts'
import { runAgent } from '../../agent/main.ts'
import { memoryLog } from './ca.ts'

const [config = '', doom = '', which = ''] = process.argv.slice(2)
let first = ''
await runAgent(loadAgentConfig(config), {
  log: memoryLog().log,
  signal: new AbortController().signal,
  between(step, { serial }) {
    first ||= serial
    const isIt = which === 'join' || (which === 'renewal' && serial !== first)
    if (isIt && step === doom) process.kill(process.pid, 'SIGKILL')
  },
})
console.log('ready')
