// One item at a time, labelled with keys. All state is in the kernel: this page sends the answers of a person and shows
// the replies. Names, labels and texts are not trusted: they are set as text and never as HTML.

const COLOURS = ['#e6194b', '#3cb44b', '#4363d8', '#f58231', '#911eb4', '#009fb0', '#f032e6', '#808000', '#9a6324', '#000075']
const COMMANDS = [
  ['previous', '←', 'ArrowLeft', 'go to the previous item'], ['next', '→', 'ArrowRight', 'go to the next item without an answer'],
  ['accept', 'a', 'a', 'accept the guess; after an edit, save what is on the screen'], ['reject', 'x', 'x', 'reject the guess'], ['skip', 'space', ' ', 'skip: I cannot answer'],
  ['ignore', 'i', 'i', 'ignore: nobody should label this item'], ['flag', 'f', 'f', 'flag for a second opinion'],
  ['undo', 'backspace', 'Backspace', 'undo the last answer'], ['save', 'enter', 'Enter', 'save the answer'], ['help', 'h', 'h', 'show or hide these keys'],
]
const AHEAD = 3         // items that are loaded in advance
const KEPT = 12         // items on either side that stay loaded
const PATIENCE = 3000   // milliseconds until the page says that the kernel is slow
const LATE = 1000       // milliseconds until the page says that an item is late

function colourOf(place) {
  // ten distinct colours, then hues a golden angle apart; each round of the circle is darker or lighter than the one before
  if (place < COLOURS.length) return COLOURS[place]
  const hue = place * 137.508 % 360, light = [.42, .3, .58][place % 3], a = .85 * Math.min(light, 1 - light)
  const part = n => { const k = (n + hue / 30) % 12; return Math.round(255 * (light - a * Math.max(-1, Math.min(k - 3, 9 - k, 1)))).toString(16).padStart(2, '0') }
  return `#${part(0)}${part(8)}${part(4)}`
}

function make(tag, name, text, parent) {
  const node = document.createElement(tag)
  if (name) node.className = 'fal-' + name
  if (text !== undefined) node.textContent = text
  if (parent) parent.append(node)
  return node
}

const PROPOSED = 'The guess is on the screen now. Press a or enter to save it in place of the earlier answer.'

function numberIn(text) {
  // the number in a text, or what is wrong with it; a comma may be a decimal point, but before three digits it may separate thousands
  const whole = text.replace(/,(?=\d{3}(?!\d))/g, ''), point = text.replace(',', '.')
  if (whole !== text) return { error: `${text} may mean ${whole} or ${point}. Type it without the comma.` }
  const value = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(point) ? Number(point) : NaN
  return Number.isFinite(value) ? { value } : { error: text === '' ? 'Type a number.' : `${text} is not a number. Type one such as 1.5.` }
}

function lettersOf(classes) {
  // a unique letter for each class: the first in its name that no command and no earlier class uses
  const taken = new Set(COMMANDS.map(c => c[2]).concat(['/', 'e', '[', ']']))
  return classes.map(name => {
    const letter = [...name.toLowerCase()].find(c => /\p{L}/u.test(c) && !taken.has(c))
    if (letter) taken.add(letter)
    return letter || ''
  })
}

// ---- the kinds of answer: each keeps a draft, knows what to send, and what is unfinished when the item is left

class ClassAnswer {
  constructor(panel) { this.panel = panel; this.rejected = null; this.build() }
  build() {
    const { classes } = this.panel.setup, box = make('div', 'classes', undefined, this.panel.answers)
    this.letters = lettersOf(classes)
    if (classes.length > 10) this.search(this.panel.answers)
    this.buttons = classes.map((name, i) => {
      const b = this.panel.button(box, name, i < 10 ? String((i + 1) % 10) : '', () => this.choose(i), 'class')
      if (classes.length <= 10 && this.letters[i]) { make('kbd', 'key', this.letters[i], b); b.setAttribute('aria-keyshortcuts', `${(i + 1) % 10} ${this.letters[i]}`) }
      return b
    })
    box.before(...this.panel.answers.querySelectorAll('.fal-search'))
  }
  search(parent) {
    this.field = make('input', 'search', undefined, parent)
    Object.assign(this.field, { type: 'text', placeholder: 'search for a class: /', autocomplete: 'off', spellcheck: false })
    this.field.setAttribute('aria-label', 'search for a class')
    this.field.addEventListener('input', () => this.filter())
  }
  filter() {
    const wanted = this.field.value.trim().toLowerCase(), names = this.panel.setup.classes
    const starts = [], holds = []
    names.forEach((name, i) => { const at = name.toLowerCase().indexOf(wanted); if (at === 0) starts.push(i); else if (at > 0) holds.push(i) })
    this.found = wanted ? starts.concat(holds) : []
    this.buttons.forEach((b, i) => { b.hidden = wanted !== '' && !this.found.includes(i); b.classList.toggle('fal-first', i === this.found[0]) })
  }
  clearSearch() { if (this.field) { this.field.value = ''; this.filter(); this.panel.focus() } }
  key(e) {
    if (this.field && e.target === this.field) {
      if (e.key === 'Enter' && this.found?.length) { const i = this.found[0]; this.clearSearch(); this.choose(i); return true }
      if (e.key === 'Escape') { this.clearSearch(); return true }
      return 'typing'
    }
    const { classes } = this.panel.setup
    if (/^[0-9]$/.test(e.key)) { const i = (Number(e.key) + 9) % 10; if (i < classes.length) { this.choose(i); return true } return false }
    if (this.field && (e.key === '/' || /^\p{L}$/u.test(e.key) && !COMMANDS.some(c => c[2] === e.key.toLowerCase()))) {
      this.field.focus()
      if (e.key !== '/') { this.field.value = e.key; this.filter() }
      return true
    }
    const i = this.letters.indexOf(e.key.toLowerCase())
    if (!this.field && i >= 0) { this.choose(i); return true }
    return false
  }
  choose(i) { this.panel.say('label', i) }
  show(item) {
    this.rejected = null
    if (this.field?.value) this.clearSearch()
    this.mark(item.said?.kind === 'label' ? item.said.value : null)
  }
  mark(own) { this.buttons.forEach((b, i) => { b.setAttribute('aria-pressed', i === own); b.classList.toggle('fal-struck', i === this.rejected) }) }
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

class LabelsAnswer extends ClassAnswer {
  build() { super.build(); this.strangers = new Strangers(this.panel, i => this.choose(i)) }
  choose(i) { this.chosen.has(i) ? this.chosen.delete(i) : this.chosen.add(i); this.changed = true; this.draw() }
  show(item) {
    this.chosen = new Set(item.draft ?? (item.said?.kind === 'label' ? item.said.value : this.panel.setup.review ? item.standing : null))
    this.changed = item.draft !== undefined
    this.strangers.show(item)
    this.draw()
  }
  draft() { return this.changed ? [...this.chosen] : undefined }
  draw() { this.buttons.concat(this.strangers.buttons).forEach((b, i) => b.setAttribute('aria-pressed', this.chosen.has(i))) }
  save() { this.panel.say('label', [...this.chosen].sort((a, b) => a - b)) }
  propose(guess) { this.chosen = new Set(guess); this.changed = true; this.draw() }
  accept(guess) { this.panel.say('label', guess) }
  reject() { this.chosen.clear(); this.changed = true; this.draw(); this.panel.tell('Choose the labels, then press enter.') }
}

// classes of an item's label that the question does not have: they stay unless a person removes them
class Strangers {
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

class FieldAnswer {
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
    if (e.target !== this.field) { if (e.key === 'Enter' && this.isText) { this.field.focus(); return true } return false }
    if (e.key === 'Enter' && !e.shiftKey) { this.save(); return true }
    if (e.key === 'Escape') { this.panel.keys.focus(); return true }
    if (this.field.value === '' && e.key === 'Backspace') return this.changed      // one backspace too many does not undo an answer
    if (this.isText) return this.field.value === '' && ['ArrowLeft', 'ArrowRight'].includes(e.key) ? false : 'typing'
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

// boxes and masks share a canvas over the image, with `zoom` canvas pixels per pixel of the image
class CanvasAnswer {
  constructor(panel) {
    this.panel = panel; this.active = panel.setup.kind === 'mask' ? Math.min(1, panel.setup.classes.length - 1) : 0
    const box = make('div', 'classes', undefined, panel.answers)
    this.buttons = panel.setup.classes.map((name, i) => {
      const b = panel.button(box, name, i < 10 ? String((i + 1) % 10) : '', () => this.activate(i), 'class')
      b.style.borderLeft = `6px solid ${this.colour(i)}`
      return b
    })
    this.tools = make('div', 'tools', undefined, panel.answers)
    this.activate(this.active)
  }
  colour(i) { return i < this.panel.setup.classes.length ? colourOf(i) : '#888888' }      // grey: a class outside the question
  activate(i) { this.active = i; this.buttons.forEach((b, j) => b.setAttribute('aria-pressed', i === j)); this.activated?.(i) }
  key(e) {
    if (/^[0-9]$/.test(e.key)) { const i = (Number(e.key) + 9) % 10; if (i < this.buttons.length) { this.activate(i); return true } }
    return false
  }
  canvasFor(image) {
    this.image = image
    this.zoom = Math.max(1, Math.floor(560 / Math.max(image.naturalWidth, image.naturalHeight)))
    this.canvas = make('canvas', 'canvas')
    this.canvas.width = image.naturalWidth * this.zoom; this.canvas.height = image.naturalHeight * this.zoom
    this.canvas.addEventListener('pointerdown', e => { if (e.button) return; e.preventDefault(); this.panel.focus(); this.canvas.setPointerCapture(e.pointerId); this.down(this.at(e)) })
    this.canvas.addEventListener('pointermove', e => this.move(this.at(e), e.buttons & 1))
    this.canvas.addEventListener('pointerup', e => this.up(this.at(e)))
    this.canvas.addEventListener('pointercancel', () => this.cancel())
    this.draw()
    return this.canvas
  }
  at(e) {   // position of a pointer, in pixels of the image as it was sent
    const r = this.canvas.getBoundingClientRect()
    return [(e.clientX - r.left) / r.width * this.image.naturalWidth, (e.clientY - r.top) / r.height * this.image.naturalHeight]
  }
  picture() {
    const c = this.canvas.getContext('2d')
    c.setTransform(1, 0, 0, 1, 0, 0)
    c.imageSmoothingEnabled = this.zoom < 3
    c.drawImage(this.image, 0, 0, this.canvas.width, this.canvas.height)
    return c
  }
}

class BoxesAnswer extends CanvasAnswer {
  constructor(panel) {
    super(panel)
    panel.button(this.tools, 'delete the box', 'del', () => this.remove())
    panel.button(this.tools, 'save', 'enter', () => this.save())
    this.strangers = new Strangers(panel, i => this.activated(i))
  }
  show(item) {
    const from = item.said?.kind === 'label' ? item.said.value : this.panel.setup.review ? item.standing : null
    this.strangers.show(item)
    this.take(from || item.guess || { boxes: [], labels: [] })
    if (item.draft) { this.boxes = item.draft; this.changed = true; this.draw() }
  }
  draft() { return this.changed ? this.boxes : undefined }
  take(label) {
    const { item } = this.panel, [kx, ky] = this.scale(item)
    this.boxes = label.boxes.map((b, i) => ({ at: [b[0] / kx, b[1] / ky, b[2] / kx, b[3] / ky], label: label.labels[i] }))
    this.selected = null; this.drag = null; this.changed = false
    if (this.canvas) this.draw()
  }
  scale(item) { return item.image ? [item.view.size[0] / item.image.naturalWidth, item.view.size[1] / item.image.naturalHeight] : [1, 1] }
  activated(i) { if (this.selected !== null && this.selected !== undefined) { this.boxes[this.selected].label = i; this.changed = true; this.draw() } }
  down(p) { this.drag = { from: p, to: p } }
  move(p, held) { if (this.drag && held) { this.drag.to = p; this.draw() } }
  up(p) {
    if (!this.drag) return
    const [x, y] = this.drag.from, { naturalWidth: w, naturalHeight: h } = this.image, fit = (v, most) => Math.min(Math.max(v, 0), most)
    const box = [fit(Math.min(x, p[0]), w), fit(Math.min(y, p[1]), h), fit(Math.max(x, p[0]), w), fit(Math.max(y, p[1]), h)]
    this.drag = null
    const least = 4 * w / this.canvas.getBoundingClientRect().width      // a click, not a box
    if (box[2] - box[0] >= least && box[3] - box[1] >= least) { this.boxes.push({ at: box, label: this.active }); this.selected = this.boxes.length - 1; this.changed = true }
    else this.selected = this.boxes.findLastIndex(b => b.at[0] <= x && x <= b.at[2] && b.at[1] <= y && y <= b.at[3])
    if (this.selected < 0) this.selected = null
    this.draw()
  }
  cancel() { this.drag = null; this.draw() }
  remove() { if (this.selected !== null) { this.boxes.splice(this.selected, 1); this.changed = true; this.selected = this.boxes.length ? this.boxes.length - 1 : null; this.draw() } }
  key(e) {
    if (e.key === 'Delete' || e.key === 'Backspace' && this.selected !== null) { this.remove(); return true }
    if (e.key === 'Escape') { this.selected = null; this.cancel(); return true }
    return super.key(e)
  }
  draw() {
    if (!this.canvas) return
    const c = this.picture(), z = this.zoom, wide = Math.max(2, this.canvas.width / 280)
    const box = ([l, t, r, b], colour, selected) => { c.setLineDash(colour === '#888888' ? [3 * wide, 2 * wide] : []); c.lineWidth = selected ? 2 * wide : wide; c.strokeStyle = colour; c.strokeRect(l * z, t * z, (r - l) * z, (b - t) * z) }
    this.boxes.forEach((b, i) => box(b.at, this.colour(b.label), i === this.selected))
    if (this.drag) box([...this.drag.from, ...this.drag.to], this.colour(this.active), false)
    this.canvas.dataset.boxes = this.boxes.length
  }
  save() {
    const [kx, ky] = this.scale(this.panel.item)
    this.panel.say('label', { boxes: this.boxes.map(({ at: b }) => [b[0] * kx, b[1] * ky, b[2] * kx, b[3] * ky]), labels: this.boxes.map(b => b.label) })
  }
  propose(guess) { this.take(guess); this.changed = true }
  accept(guess) { this.panel.say('label', guess) }
  reject() { this.take({ boxes: [], labels: [] }); this.changed = true }
}

class MaskAnswer extends CanvasAnswer {
  constructor(panel) {
    super(panel)
    this.radius = null
    panel.button(this.tools, 'smaller brush', '[', () => this.resize(1 / 1.4))
    panel.button(this.tools, 'larger brush', ']', () => this.resize(1.4))
    panel.button(this.tools, 'clear', '', () => this.reject())
    panel.button(this.tools, 'save', 'enter', () => this.save())
    this.file = make('input', 'search', undefined, panel.answers)
    Object.assign(this.file, { type: 'text', placeholder: 'or name a file with the mask and press enter', spellcheck: false })
    this.file.setAttribute('aria-label', 'file with the mask')
  }
  show(item) {
    const { naturalWidth: w, naturalHeight: h } = item.image
    this.mask = new Uint8Array(w * h)
    if (item.mask?.length === w * h) this.mask.set(item.mask)
    this.radius ??= Math.max(1, Math.min(w, h) / 24)
    this.last = this.pointer = null
    this.changed = item.draft !== undefined
    if (this.changed) this.mask = item.draft.mask
    this.file.value = ''; this.strokes = item.draft?.strokes ?? []; this.painted = document.createElement('canvas'); this.painted.width = w; this.painted.height = h
    this.repaint()
  }
  draft() { return this.changed ? { mask: this.mask, strokes: this.strokes } : undefined }
  resize(by) { this.radius = Math.max(.5, Math.min(this.radius * by, 500)); this.draw() }
  down(p) { this.changed = true; this.strokes.push(this.mask.slice()); if (this.strokes.length > 20) this.strokes.shift(); this.last = p; this.stroke(p, p) }
  move(p, held) { this.pointer = p; if (held && this.last) { this.stroke(this.last, p); this.last = p } else this.draw() }
  up() { this.last = null }
  cancel() { this.last = null }
  stroke(a, b) {
    const { naturalWidth: w, naturalHeight: h } = this.image, r = this.radius
    const [x0, x1] = [Math.min(a[0], b[0]) - r, Math.max(a[0], b[0]) + r], [y0, y1] = [Math.min(a[1], b[1]) - r, Math.max(a[1], b[1]) + r]
    const dx = b[0] - a[0], dy = b[1] - a[1], long = dx * dx + dy * dy
    for (let y = Math.max(0, Math.floor(y0)); y <= Math.min(h - 1, Math.ceil(y1)); y++)
      for (let x = Math.max(0, Math.floor(x0)); x <= Math.min(w - 1, Math.ceil(x1)); x++) {
        const t = long ? Math.min(1, Math.max(0, ((x + .5 - a[0]) * dx + (y + .5 - a[1]) * dy) / long)) : 0
        const ex = x + .5 - a[0] - t * dx, ey = y + .5 - a[1] - t * dy
        if (ex * ex + ey * ey <= r * r) this.mask[y * w + x] = this.active
      }
    this.repaint()
  }
  repaint() {
    const { width: w, height: h } = this.painted, c = this.painted.getContext('2d'), pixels = c.createImageData(w, h)
    const all = new Uint32Array(pixels.data.buffer)
    const tint = this.panel.setup.classes.map((_, k) => { const n = parseInt(this.colour(k).slice(1), 16); return k ? (130 << 24 | (n & 255) << 16 | (n >> 8 & 255) << 8 | n >> 16) >>> 0 : 0 })
    let painted = 0
    for (let i = 0; i < all.length; i++) { all[i] = tint[this.mask[i]] || 0; painted += this.mask[i] > 0 }
    this.count = painted
    c.putImageData(pixels, 0, 0)
    this.draw()
  }
  draw() {
    if (!this.canvas || !this.painted) return
    const c = this.picture()
    c.imageSmoothingEnabled = false
    c.drawImage(this.painted, 0, 0, this.canvas.width, this.canvas.height)
    if (this.pointer) { c.strokeStyle = this.colour(this.active); c.lineWidth = 2; c.beginPath(); c.arc(this.pointer[0] * this.zoom, this.pointer[1] * this.zoom, this.radius * this.zoom, 0, 7); c.stroke() }
    this.canvas.dataset.painted = this.count
  }
  key(e) {
    if (e.target === this.file) {
      if (e.key === 'Enter' && this.file.value.trim()) { this.panel.keys.focus(); this.panel.say('file', this.file.value.trim()); return true }
      if (e.key === 'Escape') { this.panel.keys.focus(); return true }
      return 'typing'
    }
    if (e.key === '[' || e.key === ']') { this.resize(e.key === ']' ? 1.4 : 1 / 1.4); return true }
    if (e.key === 'e') { this.activate(0); return true }
    if (e.key === 'Backspace' && this.strokes.length) { this.mask = this.strokes.pop(); this.repaint(); return true }
    return super.key(e)
  }
  save() { this.panel.say('label', null, [this.mask.slice()], [this.image.naturalWidth, this.image.naturalHeight]) }
  propose() { this.strokes.push(this.mask.slice()); this.mask.set(this.panel.item.guessMask); this.changed = true; this.repaint() }
  accept(guess) { this.panel.say('accept', null) }
  reject() { this.mask.fill(0); this.strokes = []; this.changed = true; this.repaint() }
}

const ANSWERS = { class: ClassAnswer, labels: LabelsAnswer, value: FieldAnswer, text: FieldAnswer, boxes: BoxesAnswer, mask: MaskAnswer }

// ---- the panel

class Panel {
  constructor(model, root) {
    Object.assign(this, { model, root, id: Math.random().toString(36).slice(2), cache: new Map(), waiting: [], seq: 0, place: null, times: [] })
    root.classList.add('fal')
    root.tabIndex = -1
    root.dataset.lmSuppressShortcuts = 'true'
    this.status = make('div', 'status', 'Waiting for the kernel…', root)
    this.status.setAttribute('aria-live', 'polite')
    this.heard = (message, buffers) => this.hear(message, buffers || [])
    model.on('msg:custom', this.heard)
    root.addEventListener('keydown', e => this.onKey(e))
    for (const kind of ['keyup', 'keypress']) root.addEventListener(kind, e => e.stopPropagation())
    this.ask = setInterval(() => this.setup ? clearInterval(this.ask) : this.send({ type: 'ready' }), 2000)
    this.send({ type: 'ready' })
  }
  close() {
    clearInterval(this.ask); clearTimeout(this.slow); clearTimeout(this.late)
    this.model.off('msg:custom', this.heard)
    for (const item of this.cache.values()) if (item.url) URL.revokeObjectURL(item.url)
  }
  send(message, buffers) { this.model.send({ ...message, panel: this.id }, undefined, buffers) }

  hear(message, buffers) {
    if (message.panel && message.panel !== this.id && message.type !== 'item') return
    if (message.type === 'setup' && !this.setup) this.start(message)
    if (message.type === 'item' && this.setup) this.receive(message, buffers)
    if (message.type === 'done') this.finish(message)
    if (message.type === 'error' && !message.seq) this.tell(message.text, true)
  }

  // -- building
  start(setup) {
    this.setup = setup
    this.root.dataset.kind = setup.kind
    const keys = this.keys = make('input', 'keys')
    Object.assign(keys, { type: 'text', inputMode: 'none', autocomplete: 'off' })
    keys.setAttribute('aria-label', `keys for labelling: h for help`)
    keys.addEventListener('input', () => { keys.value = '' })
    const head = make('div', 'head')
    this.count = make('span', 'count', '', head)
    this.bar = make('progress', 'bar', undefined, head)
    this.rate = make('span', 'rate', '', head)
    this.stage = make('div', 'stage')
    this.about = make('div', 'about')
    this.answers = make('div', 'answers')
    this.commands = make('div', 'commands')
    this.helped = make('div', 'help'); this.helped.hidden = true
    this.root.replaceChildren(keys, head, this.stage, this.about, this.answers, this.commands, this.status, this.helped)
    this.buttons = {}
    for (const [name, key, , title] of COMMANDS) {
      if (name === 'save' && !setup.review && setup.kind === 'class') continue
      this.buttons[name] = this.button(this.commands, name, key, () => this.command(name), 'command')
      this.buttons[name].title = title
    }
    this.answer = new ANSWERS[setup.kind](this)
    this.root.addEventListener('pointerup', e => { if (!e.target.closest('input, textarea')) this.focus() })
    this.helpText()
    this.tell('')
    this.progress(setup.progress)
    this.go(setup.place ?? 0, setup.place === null)
    this.grabFocus()
  }
  button(parent, text, key, act, kind = 'tool') {
    const b = make('button', kind, undefined, parent)
    b.type = 'button'; b.tabIndex = -1
    make('span', '', text, b)
    if (key) { make('kbd', 'key', key, b); b.setAttribute('aria-keyshortcuts', key) }
    b.addEventListener('click', () => { if (!this.busy()) act() })
    return b
  }
  helpText() {
    const lines = COMMANDS.map(c => [c[1], c[3]]), { kind, classes } = this.setup
    if (kind === 'class') lines.unshift(['1-9, 0', 'choose a class'], classes.length > 10 ? ['/ or a letter that is not a key below', 'search for a class; enter selects the first'] : ['a letter', 'choose the class with that letter'])
    if (kind === 'labels') lines.unshift(['1-9, 0', 'add or remove a label'])
    if (kind === 'boxes') lines.unshift(['1-9, 0', 'class of the next box, or of the selected one'], ['mouse', 'drag to draw a box; click to select one'], ['delete', 'delete the selected box'])
    if (kind === 'mask') lines.unshift(['1-9, 0', 'class to paint'], ['mouse', 'paint'], ['[ and ]', 'smaller or larger brush'], ['e', 'erase: paint the first class'], ['backspace', 'undo the last stroke; without strokes, the last answer'])
    if (kind === 'text') lines.unshift(['escape', 'leave the text field, so that the keys below work'], ['shift enter', 'start a new line'])
    if (kind === 'text' || kind === 'value') lines.unshift(['backspace', 'in an empty, unedited field: undo the last answer'])
    for (const [key, meaning] of lines) { const row = make('div', 'line', undefined, this.helped); make('kbd', 'key', key, row); make('span', '', meaning, row) }
  }
  hasFocus() { return this.root.contains(this.root.getRootNode().activeElement) }
  focus() { (this.answer?.sink || this.keys)?.focus({ preventScroll: true }) }
  grabFocus() {
    // the notebook moves the focus after a cell has run, so set it again a few times, unless somebody clicks elsewhere
    if (!this.setup.autofocus) return
    let left = 8, stopped = false
    const stop = () => { stopped = true; document.removeEventListener('pointerdown', stop, true); document.removeEventListener('keydown', stop, true) }
    document.addEventListener('pointerdown', stop, true); document.addEventListener('keydown', stop, true)
    const again = () => { if (stopped || !this.root.isConnected || left-- <= 0) return stop(); if (!this.hasFocus()) this.focus(); setTimeout(again, 120) }
    again()
  }

  // -- items
  receive(message, buffers) {
    const old = this.cache.get(message.place)
    const whole = message.view || message.error
    if (whole ? old?.ready : !old?.ready) return                     // already loaded; or a change of an item that is not loaded
    if (!whole && this.setup.kind === 'mask' && JSON.stringify(old.said) !== JSON.stringify(message.said)) old.stale = true      // its mask has changed
    const item = whole ? message : Object.assign(old, message)
    if (message.view?.kind === 'image') {
      item.url = URL.createObjectURL(new Blob([buffers[0]], { type: message.view.mime }))
      item.image = new Image(); item.image.src = item.url; item.image.className = 'fal-image'; item.image.alt = ''
      item.ready = item.image.decode().catch(() => { item.broken = 'This image cannot be shown.' })
    } else item.ready ??= Promise.resolve()
    for (const name of ['mask', 'guessMask']) if (message[name] !== undefined) { const { buffer, byteOffset, byteLength } = buffers[message[name]]; item[name] = new Uint8Array(buffer, byteOffset, byteLength) }
    if (old?.url && old.url !== item.url) URL.revokeObjectURL(old.url)
    this.cache.set(message.place, item)
    if (this.place === message.place && this.item !== item) this.paint()
    else if (this.item === item && !this.pending) this.refresh()         // answered in another view
  }
  want(place) {
    const missing = []
    for (let p = place; p <= Math.min(place + AHEAD, this.setup.of - 1); p++) if (!this.cache.has(p)) { missing.push(p); this.cache.set(p, {}) }
    if (missing.length) this.send({ type: 'want', places: missing })
    for (const [p, item] of this.cache) if (Math.abs(p - place) > KEPT && item.draft === undefined) { if (item.url) URL.revokeObjectURL(item.url); this.cache.delete(p) }
  }
  go(place, atEnd = false) {
    if (place < 0) return this.tell('This is the first item.')
    if (atEnd || place >= this.setup.of) return this.end()
    this.leave()
    const old = this.cache.get(place)
    if (old?.stale) { if (old.url) URL.revokeObjectURL(old.url); this.cache.delete(place) }
    this.place = place
    delete this.root.dataset.place; delete this.root.dataset.ended
    this.want(place)
    clearTimeout(this.late)
    this.late = setTimeout(() => this.tell(`Item ${place + 1} is on its way: the kernel is busy. Keys you press are kept.`), LATE)
    this.paint()
  }
  leave() { if (this.item && !this.item.broken && !this.item.error) this.item.draft = this.answer.draft?.(); this.item = null }
  async paint() {
    const place = this.place, item = this.cache.get(place)
    if (!item?.ready) return
    await item.ready
    if (this.place !== place || this.item === item) return
    this.item = item
    clearTimeout(this.late)
    if (this.status.textContent.startsWith(`Item ${place + 1} is on its way`)) this.tell('')
    this.answers.hidden = false
    this.drawn = JSON.stringify(item.said)
    if (item.image || !this.answer.canvasFor) this.answer.show(item)
    item.draft = undefined
    if (item.broken || item.error) this.stage.replaceChildren(make('div', 'text', item.broken || item.error))
    else if (item.view.kind === 'image') this.stage.replaceChildren(this.answer.canvasFor ? this.answer.canvasFor(item.image) : this.enlarged(item.image))
    else if (item.view.kind === 'text') this.stage.replaceChildren(make('div', 'text', item.view.text))
    else this.stage.replaceChildren(this.table(item.view.rows))
    this.stage.scrollTop = 0
    this.count.textContent = `${place + 1} of ${this.setup.of} · ${this.setup.by}`
    this.describe(item)
    requestAnimationFrame(() => { if (this.place === place) this.root.dataset.place = place })
    this.shownAt = performance.now()
    if (this.answer.sink && this.hasFocus()) this.focus()
    this.drain()
  }
  enlarged(image) {
    const times = Math.floor(320 / Math.max(image.naturalWidth, image.naturalHeight))
    image.classList.toggle('fal-pixels', times >= 2)
    image.style.width = times >= 2 ? image.naturalWidth * times + 'px' : ''
    return image
  }
  table(rows) {
    const t = make('table', 'row')
    for (const [name, value] of rows) { const r = make('tr', '', undefined, t); make('th', '', name, r); make('td', '', value, r) }
    return t
  }
  describe(item) {
    const parts = []
    if (item.guessWords !== undefined) parts.push(`guess: ${item.guessWords}`)
    if (item.standingWords !== undefined) parts.push(`labelled: ${item.standingWords}`)
    if (item.extra?.length) parts.push(`not among the classes: ${item.extra.join(', ')}`)
    if (item.score !== undefined) parts.push(`score ${item.score}`)
    if (item.heldOut) parts.push('hold-out item: no guess is shown')
    if (item.said) parts.push({ label: 'your answer is saved', ignore: 'ignored', skip: 'skipped' }[item.said.kind])
    this.about.textContent = parts.join(' · ')
    this.buttons.flag.setAttribute('aria-pressed', Boolean(item.flagged))
    for (const name of ['accept', 'reject']) this.buttons[name].disabled = item.guess === undefined
    this.answer.buttons?.forEach((b, i) => b.classList.toggle('fal-guess', item.guess === i && this.setup.kind === 'class'))
  }
  end() {
    this.leave()
    clearTimeout(this.late)
    this.place = this.setup.of
    delete this.root.dataset.place
    const { done, of, label, skip, ignore, flag } = this.counts
    const open = of - done
    this.stage.replaceChildren(make('div', 'text', (open ? `End of the list. ${open} of ${of} items have no answer: → goes to the first.` : `All ${of} items are done.`) + ` ${label} labelled, ${skip} skipped, ${ignore} ignored, ${flag} flagged. ← goes back, backspace undoes the last answer.`))
    const had = this.hasFocus()
    this.answers.hidden = true
    if (had) this.keys.focus({ preventScroll: true })
    this.about.textContent = ''
    this.root.dataset.ended = 'true'
    this.drain()
  }
  progress(counts) {
    this.counts = counts
    this.bar.max = counts.of; this.bar.value = counts.done
    this.bar.title = `${counts.done} of ${counts.of} done`
    const recent = this.times.slice(-20)
    this.rate.textContent = recent.length ? `${(60 * recent.length / recent.reduce((a, b) => a + b, 0)).toFixed(0)} per minute` : ''
  }

  // -- answers
  say(kind, value, buffers, size) {
    if (!this.item || this.item.error && kind !== 'ignore' && kind !== 'skip' && kind !== 'flag') return this.tell('This item cannot be labelled. Skip or ignore it.')
    const seconds = (performance.now() - this.shownAt) / 1000
    if (kind !== 'flag') this.spent = seconds
    this.commit({ type: 'say', kind, place: this.place, value, size, seconds }, buffers)
  }
  commit(message, buffers) {
    this.pending = { ...message, seq: ++this.seq }
    this.root.dataset.pending = this.seq
    this.send(this.pending, buffers)
    this.slow = setTimeout(() => this.tell('The kernel is busy or gone, and this answer is not saved yet. If the kernel was restarted, run the cell again; earlier answers are saved.', true), PATIENCE)
  }
  finish(message) {
    if (!this.pending || message.seq !== this.pending.seq) return
    clearTimeout(this.slow)
    const { kind, type } = this.pending
    this.pending = null
    delete this.root.dataset.pending
    if (message.error) { this.tell(message.error, true); this.waiting = []; return }
    this.tell(message.text || '')
    if (type === 'say' && kind !== 'flag') {
      this.times.push(Math.max(this.spent, .05)); this.root.dataset.answered = Number(this.root.dataset.answered || 0) + 1
      this.answer.changed = false
    }
    this.progress(message.progress)
    if (message.to === null) this.go(this.setup.of, true)
    else if (message.to !== undefined && (message.to !== this.place || this.item?.stale)) this.go(message.to)
    else { if (this.item) this.refresh(); this.drain() }
  }
  refresh() {
    const said = JSON.stringify(this.item.said)
    if (said !== this.drawn && this.answer.draft?.() === undefined) {
      if (this.item.stale) return this.go(this.place)
      this.drawn = said
      this.answer.show(this.item)
    }
    this.describe(this.item)
  }
  drain() { while (this.waiting.length && !this.pending && (this.root.dataset.ended || this.item && this.cache.get(this.place) === this.item)) this.waiting.shift()() }

  // -- keys
  onKey(e) {
    e.stopPropagation()
    if (!this.setup || (e.ctrlKey || e.altKey) && !e.getModifierState('AltGraph') || e.metaKey || e.isComposing) return
    const typing = ['INPUT', 'TEXTAREA'].includes(e.target.tagName) && e.target !== this.keys
    if (e.repeat && !(typing && !this.busy() && (e.key.length === 1 && (this.setup.kind !== 'value' || /^[-+0-9.,eE]$/.test(e.key)) || e.target.value && /^(Backspace|Delete|Arrow)/.test(e.key)))) return e.preventDefault()   // a key held down counts once
    if (this.busy()) {
      if (e.key === 'Tab' || e.key === 'Shift') return
      e.preventDefault()
      const { key, shiftKey } = e
      this.waiting.push(() => { const at = this.root.getRootNode().activeElement; this.press({ key, shiftKey, target: this.root.contains(at) && ['INPUT', 'TEXTAREA'].includes(at.tagName) ? at : this.keys }) })
      return
    }
    const used = this.press(e)
    if (used && used !== 'typing') e.preventDefault()
  }
  busy() { return Boolean(this.pending) || !this.root.dataset.ended && (!this.item || this.cache.get(this.place) !== this.item) }
  press(e) {
    const used = this.root.dataset.ended ? false : this.answer.key(e)
    if (used) {
      if (used === 'typing' && !(e instanceof Event)) {      // a queued key
        const f = e.target, { selectionStart: from, selectionEnd: to } = f
        if (e.key.length === 1) f.setRangeText(e.key, from, to, 'end')
        else if (e.key === 'Enter' && f.tagName === 'TEXTAREA') f.setRangeText('\n', from, to, 'end')
        else if (e.key === 'Backspace') f.setRangeText('', from === to ? Math.max(0, from - 1) : from, to, 'end')
        f.dispatchEvent(new Event('input'))
      }
      return used
    }
    const command = COMMANDS.find(c => c[2] === (e.key.length === 1 ? e.key.toLowerCase() : e.key))
    if (!command) return false
    this.command(command[0])
    return true
  }
  command(name) {
    const ended = this.root.dataset.ended, guess = this.item?.guess
    if (name === 'help') { this.helped.hidden = !this.helped.hidden; return }
    if (name === 'previous') return this.go(this.place - 1)
    if (name === 'next') return ended ? this.commit({ type: 'next', place: -1 }) : this.go(this.place + 1)
    if (name === 'undo') return this.commit({ type: 'undo' })
    if (ended) return this.tell('All items are done. ← goes back.')
    if (name === 'accept' && this.edited()) return this.answer.save()
    if (name === 'accept' && guess !== undefined && this.coversGuess()) { this.answer.propose(guess); return this.tell(PROPOSED) }
    if (name === 'accept' || name === 'reject') return guess === undefined ? this.tell('No guess is shown for this item.') : this.answer[name](guess)
    if (name === 'save') return this.answer.save()
    this.say(name)
  }
  edited() { const draft = this.answer.draft?.(); return draft !== undefined && (typeof draft !== 'string' || draft.trim() !== '') }      // an empty field is not an edit
  coversGuess() {
    // is something else on the screen in place of the guess: the person's own answer, or a drawing under review?
    const { said, standing } = this.item, drawn = ['boxes', 'mask'].includes(this.setup.kind)
    return Boolean(this.answer.propose) && (said?.kind === 'label' || drawn && this.setup.review && standing !== undefined && standing !== null)
  }
  tell(text, alarm = false) { this.status.textContent = text; this.status.classList.toggle('fal-alarm', alarm) }
}

export default {
  render({ model, el }) {
    const panel = new Panel(model, el)
    return () => panel.close()
  },
}
