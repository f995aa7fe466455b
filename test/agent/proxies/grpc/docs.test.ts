// The snippets of docs/grpc.md are what the readers of such files take.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { z } from 'zod'
import { agentFileSets } from '../../../../agent/files/config.ts'
import { drivenProxies } from '../../../../agent/proxies/config.ts'
import { demandGrpcCan } from '../../../../agent/proxies/grpc/problems.ts'
import { proxySpec } from '../../../../proxy-spec/spec.ts'

const text = readFileSync(join(import.meta.dirname, '../../../../docs/grpc.md'), 'utf8')
const [agent = '', spec = ''] = [...text.matchAll(/```yaml\n(.*?)```/gs)].map(([, it]) => it ?? '')

const path = z.string().transform((it) => it)

// www-data is another number elsewhere
const accounts = { user: () => 33, group: () => 33, whyNot: () => undefined }

describe('docs/grpc.md', () => {
  it('shows an agent.yaml', () => {
    const shape = z.strictObject({
      proxies: drivenProxies(path),
      files: agentFileSets(path, accounts),
      services: z.record(z.string(), z.array(z.string())),
    })
    expect(shape.parse(parse(agent)).proxies).toMatchObject([{ spec: 'web.yaml', driver: 'grpc' }])
  })

  it('shows a spec that gRPC can do', () => {
    const read = proxySpec.parse(parse(spec))
    expect(() => demandGrpcCan(read)).not.toThrow()
    expect(read.outbound[0]?.name).toBe('db')
  })
})
