import { defineConfig } from 'vitest/config'

// where CI wants the unit tests' results as JSON, for the conformance table; the end-to-end run has none
const results = process.argv.includes('test/e2e') ? undefined : process.env.UNIT_TEST_RESULTS

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    maxWorkers: 2,
    pool: 'forks',
    ...(results === undefined ? {} : { reporters: ['default', ['json', { outputFile: results }]] }),
  },
})
