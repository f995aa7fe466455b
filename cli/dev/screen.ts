// Where the demonstration speaks: a picture that is redrawn in place, and news above it.
import type { CliProcess } from '../context.ts'

export interface Screen {
  /** News; stays on the screen. */
  say(text: string): void
  /** Replaces the picture of before. Elsewhere than on a terminal it is printed when `news` has changed. */
  show(picture: string, news: string): void
}

const silent: Screen = { say() {}, show() {} }

export function createScreen(
  stdout: CliProcess['stdout'],
  { isJson }: { isJson: boolean },
): Screen {
  if (isJson) return silent
  let rows = 0
  let told = ''
  // a line that is wrapped takes more than one row
  const rowsOf = (line: string) => Math.max(1, Math.ceil(line.length / (stdout.columns ?? 80)))
  return {
    say(text) {
      stdout.write(text)
      // the picture above it is history now
      rows = 0
    },
    show(picture, news) {
      if (stdout.isTTY === true) {
        stdout.write(`${rows > 0 ? `\u001b[${rows}A\u001b[0J` : ''}${picture}\n`)
        rows = picture.split('\n').reduce((sum, line) => sum + rowsOf(line), 0)
      } else if (news !== told) stdout.write(`${picture}\n\n`)
      told = news
    },
  }
}
