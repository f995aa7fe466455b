// What a benchmark is, and how rounds of two competitors are made comparable.

export interface BenchResult {
  /** what was measured, one row each */
  readonly rows: readonly Readonly<Record<string, string | number>>[]
  readonly figure: number
  readonly unit: string
  readonly goal: number
  /** what the figure is measured against, in the same run */
  readonly peer: { readonly name: string; readonly figure: number }
  readonly ok: boolean
}

export interface Bench {
  readonly name: string
  readonly run: () => Promise<BenchResult>
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length / 2
  const upper = sorted[Math.floor(middle)] ?? Number.NaN
  const lower = sorted[Math.ceil(middle) - 1] ?? Number.NaN
  return (lower + upper) / 2
}

export interface Competitor {
  readonly name: string
  readonly run: () => Promise<number>
}

/**
 * Runs `competitors` in turns, so that what else the machine does hits all alike, and gives the median
 * of each, in their order. Short rounds and many are better than few and long: a machine that stalls
 * spoils fewer of them. The first `warmUp` are not counted.
 */
export async function interleave(
  competitors: readonly Competitor[],
  rounds: number,
  warmUp = 1,
): Promise<readonly number[]> {
  const measured = competitors.map(({ run }) => ({ run, values: [] as number[] }))
  for (let round = 0; round < warmUp + rounds; round++) {
    for (const { values, run } of measured) {
      const value = await run()
      if (round >= warmUp) values.push(value)
    }
  }
  return measured.map(({ values }) => median(values))
}

export function rounded(value: number, digits = 2): number {
  return Number(value.toFixed(digits))
}

/** The value that `share` of the values do not exceed. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN
}

export interface Goal {
  readonly what: string
  readonly measured: number
  readonly unit: string
  /** what it may be at most, or has to be at least */
  readonly limit: { readonly most: number } | { readonly least: number }
}

const isMet = ({ measured, limit }: Goal): boolean =>
  'most' in limit ? measured <= limit.most : measured >= limit.least

/** A row for what has no goal. */
export function fact(what: string, measured: number, unit: string, digits = 2) {
  return { what, measured: rounded(measured, digits), unit, goal: '', met: '' }
}

/** A row for each goal, met or not. */
export function judge(goals: readonly Goal[]): Pick<BenchResult, 'rows' | 'ok'> {
  const rows = goals.map((goal) => ({
    what: goal.what,
    measured: rounded(goal.measured),
    unit: goal.unit,
    goal: 'most' in goal.limit ? `<= ${goal.limit.most}` : `>= ${goal.limit.least}`,
    met: isMet(goal) ? 'yes' : 'no',
  }))
  return { rows, ok: goals.every(isMet) }
}
