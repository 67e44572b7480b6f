// What boxes and masks share: an image, and over it a layer on which a person draws.

import { make, colourOf } from './dom.js'
import { Picker } from './picker.js'
import { letterIn } from './keys.js'

export class DrawingAnswer {
  constructor(panel) {
    this.panel = panel; this.active = panel.setup.kind === 'mask' ? Math.min(1, panel.setup.classes.length - 1) : 0
    this.picker = new Picker(panel, i => this.activate(i), { colour: i => this.colour(i) })
    this.tools = make('div', 'tools', undefined, panel.answers)
    this.shortcuts = {}
    this.activate(this.active)
  }
  get buttons() { return this.picker.buttons }
  get sink() { return this.picker.field }
  colour(i) { return i < this.panel.setup.classes.length ? colourOf(i) : '#888888' }      // grey: a class outside the question
  activate(i) {
    this.active = i
    this.picker.note(i)
    this.buttons.forEach((b, j) => b.setAttribute('aria-pressed', i === j))
    this.picker.arrange()
    if (this.buttons[i]) this.picker.front(i)
    this.activated?.(i)
  }
  tool(name, key, act) {
    this.panel.button(this.tools, name, key && this.panel.shown(key), act)
    if (key) this.shortcuts[key] = act
  }
  key(e) {
    const plain = e.altKey || /^[a-z]$/i.test(e.key) || this.sink?.value ? '' : e.key
    const act = this.shortcuts[letterIn(e, this.panel.searching)] ?? this.shortcuts[plain]
    if (act) { act(); return true }
    return this.picker.key(e)
  }
  sheetFor(image, layer) {
    // the image under `layer`, on which the pointer draws
    this.image = image; this.layer = layer
    const sheet = make('div', 'sheet')
    sheet.append(image, layer)
    layer.addEventListener('pointerdown', e => { if (e.button) return; e.preventDefault(); this.panel.focus(); layer.setPointerCapture(e.pointerId); this.down(this.at(e), e) })
    layer.addEventListener('pointermove', e => this.move(this.at(e), e.buttons & 1))
    layer.addEventListener('pointerup', e => this.up(this.at(e)))
    layer.addEventListener('pointercancel', () => this.cancel())
    return sheet
  }
  at(e) {   // position of a pointer, in pixels of the image as it was sent
    const r = this.layer.getBoundingClientRect()
    return [(e.clientX - r.left) / r.width * this.image.naturalWidth, (e.clientY - r.top) / r.height * this.image.naturalHeight]
  }
}
