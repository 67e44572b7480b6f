// A number or a text that is typed.

import { make, numberIn } from './dom.js'

export class FieldAnswer {
  constructor(panel) {
    this.panel = panel; this.isText = panel.setup.kind === 'text'
    this.field = make(this.isText ? 'textarea' : 'input', 'field', undefined, panel.answers)
    this.field.setAttribute('aria-label', this.isText ? 'text' : 'number')
    Object.assign(this.field, this.isText ? { rows: 3 } : { type: 'text', inputMode: 'decimal', autocomplete: 'off' })
    this.field.addEventListener('input', () => { this.changed = true })
  }
  get sink() { return this.field }
  show(item) {
    const value = item.said?.kind === 'label' ? item.said.value : this.panel.setup.review ? item.standing : null
    this.changed = item.draft !== undefined
    this.field.value = item.draft ?? (value === null || value === undefined ? '' : String(value))
    if (this.panel.hasFocus()) this.field.focus()
    if (this.field.value && !this.changed) this.field.select()
  }
  draft() { return this.changed ? this.field.value : undefined }
  key(e) {
    if (e.altKey) return false
    if (e.ctrlKey || e.metaKey) return this.changed && e.target === this.field ? 'typing' : false      // the field undoes its own edits
    if (e.target !== this.field) { if (e.key === 'Enter' && this.isText) { this.field.focus(); return true } return false }
    if (e.key === 'Enter' && !e.shiftKey) { this.save(); return true }
    if (e.key === 'Escape') { this.panel.keys.focus(); return true }
    if (e.key === 'PageUp' || e.key === 'PageDown') return false
    if (this.field.value === '' && e.key === 'Backspace') return this.changed      // one backspace too many does not undo an answer
    if (this.isText) return this.field.value === '' && /^Arrow/.test(e.key) ? false : 'typing'
    if (/^[-+0-9.,eE]$/.test(e.key) || this.field.value !== '' && ['Backspace', 'Delete', 'ArrowLeft', 'ArrowRight', 'Home', 'End'].includes(e.key)) return 'typing'
    return false
  }
  save() {
    const said = this.field.value.trim()
    if (this.isText) return said ? this.panel.say('label', this.field.value) : this.panel.tell('Type a text.')
    const { value, error } = numberIn(said)
    error ? this.panel.tell(error) : this.panel.say('label', value)
  }
  propose(guess) { this.field.value = String(guess); this.changed = true; this.field.focus() }
  accept(guess) { this.panel.say('label', guess) }
  reject() { this.field.value = ''; this.changed = true; this.field.focus() }
}
