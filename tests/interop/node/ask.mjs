// What the programs beside this one share: the question on standard input, and the answer on standard output.
import { webcrypto } from 'node:crypto'

// Node 18 has it, but not by that name.
globalThis.crypto ??= webcrypto

let text = ''
for await (const part of process.stdin) text += part
export const question = JSON.parse(text)

export function answer(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}

export function check(holds, what) {
  if (!holds) throw new Error(`it does not hold that ${what}`)
}
