// Which DNS names a leaf may carry, whoever asks for them.

const form =
  /^(?=.{1,253}$)(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/
const most = 64

/** Says what is wrong with the names; undefined when nothing is. */
export function dnsNamesProblem(names: readonly string[]): string | undefined {
  if (names.length > most) return `more than ${most} names`
  const bad = names.find((name) => !form.test(name))
  return bad === undefined
    ? undefined
    : `${JSON.stringify(bad.slice(0, 80))} is no DNS name in lower case`
}
