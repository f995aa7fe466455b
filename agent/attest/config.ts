// `attestors` of agent.yaml, key by key: what this agent finds out about the processes that ask it.
import { z } from 'zod'
import { duration } from '../../runtime/config.ts'

const units = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 } as const
const isUnit = (unit: string): unit is keyof typeof units => unit in units

/** Bytes, as a number or as `64MiB`. */
const size = z.union([z.number().int().min(0), z.string()]).transform((value, context) => {
  if (typeof value === 'number') return value
  const [, amount, unit = ''] = /^(\d{1,6})([KMG]iB)$/.exec(value) ?? []
  if (amount === undefined || !isUnit(unit)) {
    const message = 'a size is a number of bytes, or a number and one of KiB, MiB, GiB'
    context.addIssue({ code: 'custom', message })
    return z.NEVER
  }
  return Number(amount) * units[unit]
})

const uid = z.number().int().min(0).max(4_294_967_294)
const loopback = /^(?:localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])$/

const kubeletUrl = z.string().superRefine((text, context) => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const isBare = url !== undefined && `${url.origin}/` === url.href
  const isFit =
    url?.protocol === 'https:' || (url?.protocol === 'http:' && loopback.test(url.hostname))
  if (isBare && isFit) return
  const message =
    'the kubelet is https://HOST:PORT, or http://127.0.0.1:PORT where it has a port for reading'
  context.addIssue({ code: 'custom', message })
})

/** Paths are what `path` makes of them. */
export function attestorsConfig(path: z.ZodType<string, string>) {
  const unix = z.strictObject({
    /** programs over this size have no unix:sha256; 0: none has */
    hashLimit: size.default(256 * units.MiB),
  })

  const docker = z.strictObject({
    /** the Docker Engine's */
    socket: path.default('/var/run/docker.sock'),
  })

  const podman = z
    .strictObject({
      /** of the Podman of the whole machine, run by root */
      socket: path.optional(),
      /** of users' own: a path with {uid} in it */
      sockets: z
        .string()
        .refine((text) => text.split('{uid}').length === 2, 'names {uid} once')
        .pipe(path)
        .optional(),
      /** whose own is believed: each of these users can give a container of theirs any label */
      users: z.array(uid).min(1).optional(),
    })
    .refine((it) => it.socket !== undefined || it.sockets !== undefined, 'give socket or sockets')
    .refine(
      (it) => (it.sockets === undefined) === (it.users === undefined),
      'sockets and users belong together: name the users whose Podman is believed',
    )

  const kubernetes = z
    .strictObject({
      kubelet: kubeletUrl.default('https://127.0.0.1:10250'),
      /** PEM file of the authorities of the kubelet's certificate */
      ca: path.optional(),
      /** the name in that certificate, when it is not the host of `kubelet` */
      nodeName: z.string().min(1).optional(),
      /** file with the token of a service account that may read nodes/proxy */
      token: path.optional(),
      /** or a client certificate */
      certificate: path.optional(),
      key: path.optional(),
      /** for a container that the kubelet does not list yet */
      wait: duration
        .refine((ms) => ms <= 30_000, 'is 30s at most: somebody waits for the answer')
        .default(5000),
    })
    .refine(
      ({ kubelet, ca }) => kubelet.startsWith('https:') === (ca !== undefined),
      'https needs ca, and http has none: the kubelet is never believed unseen',
    )
    .refine(
      ({ certificate, key }) => (certificate === undefined) === (key === undefined),
      'certificate and key belong together',
    )

  return z
    .strictObject({
      /** user, groups, path and hash of the program */
      unix: unix.optional(),
      /** unit and unit file */
      systemd: z.strictObject({}).optional(),
      /** labels, environment and image of containers of Docker */
      docker: docker.optional(),
      /** the same of Podman; its selectors are docker's */
      podman: podman.optional(),
      /** pods */
      kubernetes: kubernetes.optional(),
    })
    .refine((it) => Object.keys(it).length > 0, 'name one attestor at least')
    .default({ unix: unix.parse({}) })
}

export type AttestorsConfig = z.infer<ReturnType<typeof attestorsConfig>>
