// The attestors that agent.yaml names, as one.
import { statSync } from 'node:fs'
import type { Clock } from '../../runtime/clock.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { type Attestor, createWorkloadAttestor, type WorkloadAttestor } from './attestor.ts'
import type { AttestorsConfig } from './config.ts'
import { createContainerEngine } from './container-engine.ts'
import { createLocateContainer } from './container-place.ts'
import { createDockerAttestor, type Engines, engineAmong } from './docker.ts'
import { createKubelet, type PodFinder, type PodResolver } from './kubelet.ts'
import { createKubernetesAttestor } from './kubernetes.ts'
import { loadLibc } from './libc.ts'
import { createNames } from './names.ts'
import { createProcesses, type Processes } from './peer-credentials.ts'
import { createProc, type Proc } from './proc.ts'
import { createProgramHash } from './program-hash.ts'
import { createSystemdAttestor } from './systemd.ts'
import { createUnixAttestor } from './unix.ts'

export interface AttestorsOptions {
  readonly proc: Proc
  /** where the configuration names a kubelet */
  readonly pods: PodResolver | undefined
  readonly clock: Clock
}

/** In another pid namespace the same numbers are of other processes. */
export function demandOwnProc(proc: Proc): void {
  const [, pids] = /^NSpid:\t(.*)$/m.exec(proc.text('self', 'status')) ?? []
  if (pids !== undefined && /^\d+$/.test(pids)) return
  throw new IdentityError(
    'ERR_CONFIG',
    '/proc is of another pid namespace than this agent: give it that namespace (hostPID), or its own /proc',
  )
}

/** A socket that stands where a user's own should, made by somebody else, is not theirs. */
function isOf(uid: number, socketPath: string): boolean {
  const facts = statSync(socketPath, { throwIfNoEntry: false })
  return facts?.isSocket() === true && (facts.uid === uid || facts.uid === 0)
}

function enginesOf({ docker, podman }: AttestorsConfig): Engines {
  const { socket, sockets, users } = podman ?? {}
  return {
    docker: docker && createContainerEngine('Docker', docker.socket),
    podman: socket === undefined ? undefined : createContainerEngine('Podman', socket),
    podmanOf(uid) {
      const path = sockets?.replace('{uid}', String(uid))
      if (path === undefined || users?.includes(uid) !== true || !isOf(uid, path)) return undefined
      return createContainerEngine(`the Podman of user ${uid}`, path)
    },
  }
}

/** Undefined where the configuration names no kubelet. */
export function kubeletOf({ kubernetes }: AttestorsConfig, clock: Clock) {
  return kubernetes && createKubelet({ ...kubernetes, url: kubernetes.kubelet, clock })
}

export function attestorsOf(
  config: AttestorsConfig,
  { proc, pods, clock }: AttestorsOptions,
): Attestor[] {
  const { unix, systemd, docker, podman, kubernetes } = config
  const locate = createLocateContainer(proc)
  const attestors: (Attestor | undefined)[] = [
    unix &&
      createUnixAttestor({
        proc,
        names: createNames(),
        programHash:
          unix.hashLimit === 0
            ? undefined
            : createProgramHash({ proc, limit: unix.hashLimit, clock }),
      }),
    systemd && createSystemdAttestor({ proc }),
    docker === undefined && podman === undefined
      ? undefined
      : createDockerAttestor({ locate, engineOf: engineAmong(enginesOf(config)), clock }),
    kubernetes && pods && createKubernetesAttestor({ locate, pods, wait: kubernetes.wait, clock }),
  ]
  return attestors.filter((it) => it !== undefined)
}

/** Processes, what can be seen of them, and who tells what they are. */
export interface NodeAttestation {
  readonly proc: Proc
  readonly processes: Processes
  readonly attestor: WorkloadAttestor
}

/** With the pods of this node, where the configuration names a kubelet. */
export interface OpenAttestation extends NodeAttestation {
  readonly pods: PodFinder | undefined
}

/** Throws ERR_CONFIG where nothing could be told of anybody. */
export function openAttestation(config: AttestorsConfig, clock: Clock): OpenAttestation {
  const libc = loadLibc()
  const proc = createProc({ libc })
  demandOwnProc(proc)
  const pods = kubeletOf(config, clock)
  const attestor = createWorkloadAttestor(attestorsOf(config, { proc, pods, clock }), proc)
  return { proc, processes: createProcesses({ libc, proc }), attestor, pods }
}
