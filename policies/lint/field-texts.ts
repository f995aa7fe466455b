// The texts of one field, in all rules that let in or keep out.
import { fieldsOf, type RuleField } from '../language/rule-fields.ts'
import type { CompiledRule } from '../rules/rule.ts'
import { type Ground, rulesBy } from './ground.ts'

export interface FieldText {
  readonly rule: CompiledRule
  readonly field: RuleField
  readonly text: string
  readonly index: number
}

export function* fieldTexts(
  ground: Ground,
  attribute: RuleField['attribute'],
  isAsked: (rule: CompiledRule, field: RuleField) => boolean,
): Generator<FieldText> {
  for (const rule of rulesBy(ground, 'ALLOW', 'DENY')) {
    for (const field of fieldsOf(rule.document)) {
      if (field.attribute !== attribute || !isAsked(rule, field)) continue
      for (const [index, text] of field.texts.entries()) yield { rule, field, text, index }
    }
  }
}
