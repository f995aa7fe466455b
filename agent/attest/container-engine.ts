// What the Docker Engine API, which Podman speaks too, says of a container.
import { z } from 'zod'
import { IdentityError } from '../../spiffe/errors.ts'

export interface ContainerFacts {
  readonly labels: Readonly<Record<string, string>>
  /** `KEY=value` */
  readonly env: readonly string[]
  /** as it was named when the container was made: `nginx:1.27` */
  readonly image: string
  /** `sha256:…` of the image's configuration */
  readonly imageConfigDigest: string | undefined
  /** its first process; 0 when it does not run */
  readonly pid: number
}

/** The seam: undefined when there is no such container. Throws ERR_UNAVAILABLE when nobody can say. */
export interface ContainerResolver {
  containerOf(
    id: string,
    options: { readonly signal: AbortSignal },
  ): Promise<ContainerFacts | undefined>
}

const answer = z.object({
  Id: z.string(),
  Image: z.string().default(''),
  State: z.object({ Pid: z.number().int().nonnegative() }),
  Config: z.object({
    Image: z.string().default(''),
    Labels: z.record(z.string(), z.string()).nullish(),
    Env: z.array(z.string()).nullish(),
  }),
})

const timeout = 2000
const largestAnswer = 4 * 1024 * 1024
const digest = /^(?:sha256:)?([0-9a-f]{64})$/

/** `whom` names the engine in messages. */
export function createContainerEngine(whom: string, socketPath: string): ContainerResolver {
  return {
    async containerOf(id, { signal }) {
      const to = { socketPath, path: `/containers/${id}/json` }
      // loaded when there is a container to ask about: HTTP takes longer to load than most of this agent
      const { askJson } = await import('./ask-json.ts')
      const json = await askJson({ whom, to, timeout, most: largestAnswer, signal })
      if (json === undefined) return undefined
      const parsed = answer.safeParse(json)
      if (!parsed.success || parsed.data.Id !== id)
        throw new IdentityError('ERR_UNAVAILABLE', `${whom} does not answer as an engine does`)
      const { Config, Image, State } = parsed.data
      const configDigest = digest.exec(Image)?.[1]
      return {
        labels: Config.Labels ?? {},
        env: Config.Env ?? [],
        image: Config.Image,
        imageConfigDigest: configDigest === undefined ? undefined : `sha256:${configDigest}`,
        pid: State.Pid,
      }
    },
  }
}
