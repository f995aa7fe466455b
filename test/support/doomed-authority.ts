// `node doomed-authority.ts FOLDER STEP`: an authority that is killed behind STEP of the next certificate.
import { runAuthority } from '../../ca/main.ts'
import { memoryLog, testConfig } from './ca.ts'

const [folder = '', doom = ''] = process.argv.slice(2)
let isArmed = false
const { port, socket } = await runAuthority(testConfig(folder), {
  log: memoryLog().log,
  between(step) {
    if (isArmed && step === doom) process.kill(process.pid, 'SIGKILL')
  },
})
// its own TLS certificate is issued by now
isArmed = true
console.log(JSON.stringify({ port, socket }))
