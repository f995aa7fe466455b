// All live checks against one agent.
import { explain } from '../../../spiffe/errors.ts'
import type { Evidence } from '../judge.ts'
import { type Check, NotApplicable } from './check.ts'
import { endpointChecks } from './endpoint.ts'
import { jwtChecks } from './jwt.ts'
import { type Backstage, openScene, type Scene } from './scene.ts'
import { streamChecks } from './streams.ts'
import { validationChecks } from './validation.ts'
import { witChecks } from './wit.ts'
import { x509Checks } from './x509.ts'

const checks: readonly Check[] = [
  ...endpointChecks,
  ...x509Checks,
  ...jwtChecks,
  ...validationChecks,
  ...witChecks,
  // they take entries away
  ...streamChecks,
]

const longest = 200

type Outcome = Pick<Evidence, 'outcome' | 'reason'>

/** An assertion shows what differs in further lines. */
function inOneLine(error: unknown): string {
  const text = explain(error).replaceAll(/\s+/g, ' ').trim()
  return text.length > longest ? `${text.slice(0, longest)}…` : text
}

async function outcomeOf({ run }: Check, scene: Scene): Promise<Outcome> {
  try {
    await run(scene)
    return { outcome: 'passed' }
  } catch (error) {
    if (error instanceof NotApplicable) return { outcome: 'not applicable', reason: error.message }
    return { outcome: 'failed', reason: inOneLine(error) }
  }
}

/** Rejects with PermissionDenied when nothing is registered for this process. */
export async function liveEvidence(
  socket: string,
  backstage: Backstage,
): Promise<readonly Evidence[]> {
  using scene = await openScene(socket, backstage)
  const evidence: Evidence[] = []
  for (const it of checks) {
    const outcome = await outcomeOf(it, scene)
    evidence.push(...it.ids.map((id) => ({ id, by: it.says, ...outcome })))
  }
  return evidence
}
