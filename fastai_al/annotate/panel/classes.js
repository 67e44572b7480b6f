// One class, or any number of labels.

import { make } from './dom.js'
import { Picker } from './picker.js'
import { Steps } from './steps.js'

export class ClassAnswer {
  constructor(panel) {
    this.panel = panel; this.rejected = null
    this.picker = new Picker(panel, i => this.choose(i), { lettered: true })
  }
  get buttons() { return this.picker.buttons }
  get sink() { return this.picker.field }
  key(e) { return this.picker.key(e) }
  choose(i) { this.picker.note(i); this.panel.say('label', i) }
  show(item) {
    this.rejected = null
    this.picker.settle()
    this.mark(item.said?.kind === 'label' ? item.said.value : null)
  }
  mark(own) {
    this.buttons.forEach((b, i) => {
      b.setAttribute('aria-pressed', i === own)
      b.classList.toggle('fal-struck', i === this.rejected)
    })
    this.picker.arrange()
    if (this.buttons[own]) this.picker.front(own)
  }
  save() {
    const { item, setup } = this.panel, own = item.said?.kind === 'label' ? item.said.value : null
    const value = own ?? (setup.review ? item.standing : null)
    if (value === null || value === undefined || value === this.rejected) return this.panel.tell('Choose a class.')
    if (own !== null) this.panel.go(this.panel.place + 1)
    else this.panel.say('label', value)
  }
  accept(guess) { this.choose(guess) }
  reject(guess) {
    if (this.panel.setup.classes.length === 2) return this.choose(1 - guess)
    this.rejected = guess; this.mark(null)
    this.panel.tell(`Not ${this.panel.setup.classes[guess]}. Choose another class.`)
  }
}

export class LabelsAnswer {
  constructor(panel) {
    this.panel = panel
    this.picker = new Picker(panel, i => this.choose(i), { lettered: true })
    this.strangers = new Strangers(panel, i => this.choose(i))
  }
  get buttons() { return this.picker.buttons }
  get sink() { return this.picker.field }
  get changed() { return this.steps.any }
  key(e) { return this.picker.key(e) }
  show(item) {
    const from = item.said?.kind === 'label' ? item.said.value : this.panel.setup.review ? item.standing : null
    this.picker.settle()
    this.chosen = new Set(item.draft?.chosen ?? from)
    this.steps = new Steps(item.draft?.steps)
    this.strangers.show(item)
    this.mark()
  }
  draft() { return this.changed ? { chosen: [...this.chosen], steps: this.steps.list } : undefined }
  set(chosen) { this.steps.push([...this.chosen]); this.chosen = new Set(chosen); this.mark() }
  back() { if (!this.steps.any) return false; this.chosen = new Set(this.steps.pop()); this.mark(); return true }
  choose(i) { this.picker.note(i); this.set(this.chosen.has(i) ? [...this.chosen].filter(j => j !== i) : [...this.chosen, i]) }
  mark() {
    this.buttons.concat(this.strangers.buttons).forEach((b, i) => b.setAttribute('aria-pressed', this.chosen.has(i)))
    this.picker.arrange()
    for (const i of this.chosen) if (this.buttons[i]) this.picker.front(i)
  }
  save() { this.panel.say('label', [...this.chosen].sort((a, b) => a - b)) }
  propose(guess) { this.set(guess) }
  accept(guess) { this.panel.say('label', guess) }
  reject() { this.set([]); this.panel.tell('Choose the labels, then press enter.') }
}

// classes of an item's label that the question does not have: they stay unless a person removes them
export class Strangers {
  constructor(panel, act) { Object.assign(this, { panel, act, buttons: [], box: make('div', 'classes', undefined, panel.answers) }) }
  show(item) {
    const known = this.panel.setup.classes.length
    this.box.replaceChildren()
    this.box.hidden = !item.extra?.length
    this.buttons = (item.extra || []).map((name, i) => {
      const b = this.panel.button(this.box, name, '', () => this.act(known + i), 'class')
      b.classList.add('fal-stranger')
      b.title = 'not one of the classes to choose from; it stays unless you remove it'
      return b
    })
    if (item.extra?.length) make('span', 'note', 'not among the classes', this.box)
  }
}
