// bench identify: what it costs to know who is at the other end of a local connection.
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createIdentify } from '../agent/attest/peer-credentials.ts'
