// The classes to choose from. Up to ten have a digit each. Of more than ten every letter searches, enter takes the first
// match, and the digits belong to ten places: at first the first ten classes, then those that were chosen of late.

import { make, folded } from './dom.js'
import { lettersOf } from './keys.js'

const PLACES = 10
const digitOf = place => String((place + 1) % 10)

export class Picker {
  constructor(panel, act, { lettered = false, colour } = {}) {
    const names = panel.setup.classes
    Object.assign(this, { panel, act, names, searching: panel.searching, matches: [], at: 0, used: [], fresh: false })
    this.places = names.slice(0, PLACES).map((_, i) => i)
    this.letters = lettered && !this.searching ? lettersOf(names) : []
    if (this.searching) this.buildField()
    this.box = make('div', 'classes', undefined, panel.answers)
    this.buttons = names.map((name, i) => this.buildButton(name, i, colour))
    this.number()
    this.arrange()
  }
  buildField() {
    this.folded = this.names.map(folded)
    this.field = make('input', 'search', undefined, this.panel.answers)
    const placeholder = `type to search ${this.names.length} classes; enter takes the first`
    Object.assign(this.field, { type: 'text', placeholder, autocomplete: 'off', spellcheck: false })
    this.field.setAttribute('aria-label', 'search for a class')
    this.field.addEventListener('input', () => { this.fresh = true; this.at = 0; this.arrange() })
  }
  buildButton(name, i, colour) {
    const button = this.panel.button(this.box, name, '', () => { this.clear(); this.act(i) }, 'class'), letter = this.letters[i]
    if (colour) button.style.borderLeft = `6px solid ${colour(i)}`
    if (letter) make('kbd', 'key', letter, button)
    return button
  }

  // -- which are in view, and in which order
  number() {
    // show the digits of the ten places
    this.box.querySelectorAll('.fal-digit').forEach(digit => { digit.parentElement.removeAttribute('aria-keyshortcuts'); digit.remove() })
    this.places.forEach((i, place) => {
      const digit = make('kbd', 'key fal-digit', digitOf(place))
      this.buttons[i].firstChild.after(digit)
      this.buttons[i].setAttribute('aria-keyshortcuts', [digitOf(place), this.letters[i]].filter(Boolean).join(' '))
    })
  }
  wanted() { return this.field ? folded(this.field.value.replace(/^\//, '').trim()) : '' }
  ranked(wanted) {
    // whole names, then beginnings of names, of words, and parts of words; among equals those that were chosen of late
    const escaped = wanted.replace(/[^\p{L}\p{N}\s]/gu, c => `\\u{${c.codePointAt(0).toString(16)}}`)
    const ofWord = new RegExp(`[^\\p{L}\\p{N}]${escaped}`, 'u')
    const rank = name => name === wanted ? 0 : name.startsWith(wanted) ? 1 : ofWord.test(name) ? 2 : name.includes(wanted) ? 3 : 4
    const late = new Map(this.used.map((i, k) => [i, k]))
    return this.folded.map((name, i) => [rank(name), late.get(i) ?? this.used.length, i]).filter(([r]) => r < 4)
      .sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]).map(([, , i]) => i)
  }
  arrange() {
    const wanted = this.wanted()
    this.matches = wanted ? this.ranked(wanted) : []
    const order = new Map(wanted ? this.matches.map((i, k) => [i, k]) : this.searching ? this.places.map((i, k) => [i, k - PLACES]) : [])
    this.buttons.forEach((button, i) => {
      button.hidden = wanted !== '' && !order.has(i)
      button.style.order = order.get(i) ?? ''
      button.classList.toggle('fal-first', wanted !== '' && i === this.matches[this.at])
    })
    this.box.scrollTop = 0
  }
  front(i) { if (this.searching && !this.wanted()) this.buttons[i].style.order = -99 }      // in view although there are many
  clear() { if (this.field?.value) { this.field.value = ''; this.at = 0; this.arrange() } this.fresh = false }
  note(i) { if (this.searching && i < this.names.length) this.used = [i, ...this.used.filter(j => j !== i)] }
  settle() {
    // before the next item is shown: a class that was chosen by its name gets the place that was not used for longest
    const age = i => { const k = this.used.indexOf(i); return k < 0 ? Infinity : k }
    for (const i of this.used.slice(0, 1)) {
      if (this.places.includes(i)) continue
      const oldest = Math.max(...this.places.map(age))
      this.places[this.places.findLastIndex(j => age(j) === oldest)] = i
      this.number()
    }
    this.clear()
    this.arrange()
  }

  // -- keys
  atDigit(key) { return /^[0-9]$/.test(key) ? this.places[(Number(key) + 9) % 10] : undefined }
  key(e) {
    if (e.ctrlKey || e.metaKey) return this.field?.value && e.target === this.field ? 'typing' : false      // the field undoes its own edits
    if (e.altKey) return false
    const i = this.field?.value ? undefined : e.choice ?? this.atDigit(e.key)
    if (i !== undefined) { this.act(i); return true }
    if (this.searching) return this.searchKey(e)
    const lettered = this.letters.indexOf(e.key.toLowerCase())
    if (lettered >= 0) this.act(lettered)
    return lettered >= 0
  }
  searchKey(e) {
    const typed = this.field.value !== ''
    if (typed && e.key === 'Enter') return this.take()
    if (typed && e.key === 'Escape') { this.clear(); return true }
    if (typed && (e.key === 'ArrowDown' || e.key === 'ArrowUp')) return this.step(e.key === 'ArrowDown' ? 1 : -1)
    if (typed && ['Backspace', 'Delete', 'ArrowLeft', 'ArrowRight', 'Home', 'End'].includes(e.key)) return 'typing'
    if (!typed && e.key === 'Backspace' && this.fresh) {      // one backspace too many does not undo an answer
      this.fresh = false
      this.panel.tell('Nothing is typed. Press backspace again to undo.')
      return true
    }
    const begins = typed || /^[^\s\d+=\-.[\]?]$/u.test(e.key)
    return begins && [...e.key].length === 1 ? this.type(e) : false
  }
  type(e) {
    if (e.target === this.field) return 'typing'
    this.field.focus()
    this.field.setRangeText(e.key, this.field.value.length, this.field.value.length, 'end')
    this.field.dispatchEvent(new Event('input'))
    return true
  }
  step(by) {
    this.at = Math.max(0, Math.min(this.matches.length - 1, this.at + by))
    const top = this.box.scrollTop
    this.arrange()
    this.box.scrollTop = top
    this.buttons[this.matches[this.at]]?.scrollIntoView({ block: 'nearest' })
    return true
  }
  take() {
    const i = this.matches[this.at]
    if (i === undefined) { this.panel.tell(`No class matches ${this.field.value}.`); return true }
    this.clear()
    this.act(i)
    return true
  }
}
