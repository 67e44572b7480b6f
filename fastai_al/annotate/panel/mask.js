// A class for each pixel, painted with a brush.

import { make } from './dom.js'
import { DrawingAnswer } from './drawing.js'
import { Steps } from './steps.js'

const OPACITIES = [1, .45, 0]

export class MaskAnswer extends DrawingAnswer {
  constructor(panel) {
    super(panel)
    this.radius = null; this.opacity = 0; this.steps = new Steps()
    this.tool('smaller brush', '[', () => this.resize(1 / 1.4))
    this.tool('larger brush', ']', () => this.resize(1.4))
    this.tool('erase', 'e', () => this.activate(0))
    this.tool('fainter', 'o', () => { this.opacity = (this.opacity + 1) % OPACITIES.length; this.paint() })
    this.tool('clear', '', () => this.reject())
    this.file = make('input', 'search fal-file', undefined, panel.answers)
    Object.assign(this.file, { type: 'text', placeholder: 'or name a file with the mask and press enter', spellcheck: false })
    this.file.setAttribute('aria-label', 'file with the mask')
    this.ring = make('div', 'ring')
  }
  get changed() { return this.steps.any }

  // -- the item
  show(item) {
    const { naturalWidth: w, naturalHeight: h } = item.image
    this.picker.settle(); this.activate(this.active)
    this.mask = new Uint8Array(w * h)
    if (item.mask?.length === w * h) this.mask.set(item.mask)
    if (item.draft) this.mask = item.draft.mask
    this.steps = new Steps(item.draft?.steps)
    this.radius ??= Math.max(1, Math.min(w, h) / 24)
    this.last = this.pointer = null
    this.file.value = ''
    this.painted = make('canvas', 'canvas')
    Object.assign(this.painted, { width: w, height: h })
    this.image = item.image
    this.tint()
  }
  sheet(image) {
    const sheet = this.sheetFor(image, this.painted)
    sheet.append(this.ring)
    this.painted.addEventListener('pointerleave', () => { this.pointer = null; this.paint() })
    return sheet
  }
  draft() { return this.changed ? { mask: this.mask, steps: this.steps.list } : undefined }

  // -- edits
  edit(change) { this.steps.push(this.mask.slice()); change(); this.tint() }
  back() { if (!this.steps.any) return false; this.mask = this.steps.pop(); this.tint(); return true }
  resize(by) { this.radius = Math.max(.5, Math.min(this.radius * by, 500)); this.paint() }

  // -- the pointer
  down(p) { this.edit(() => { this.last = p; this.stroke(p, p) }) }
  move(p, held) {
    this.pointer = p
    if (held && this.last) { this.stroke(this.last, p); this.last = p; this.tint() } else this.paint()
  }
  up() { this.last = null }
  cancel() { this.last = null }
  stroke(a, b) {
    // every pixel whose middle is within the radius of the line from a to b
    const { naturalWidth: w, naturalHeight: h } = this.image, r = this.radius
    const [x0, x1] = [Math.min(a[0], b[0]) - r, Math.max(a[0], b[0]) + r], [y0, y1] = [Math.min(a[1], b[1]) - r, Math.max(a[1], b[1]) + r]
    const dx = b[0] - a[0], dy = b[1] - a[1], long = dx * dx + dy * dy
    for (let y = Math.max(0, Math.floor(y0)); y <= Math.min(h - 1, Math.ceil(y1)); y++)
      for (let x = Math.max(0, Math.floor(x0)); x <= Math.min(w - 1, Math.ceil(x1)); x++) {
        const t = long ? Math.min(1, Math.max(0, ((x + .5 - a[0]) * dx + (y + .5 - a[1]) * dy) / long)) : 0
        const ex = x + .5 - a[0] - t * dx, ey = y + .5 - a[1] - t * dy
        if (ex * ex + ey * ey <= r * r) this.mask[y * w + x] = this.active
      }
  }

  // -- drawing
  tint() {
    // the mask in the colours of its classes; the first class, the ground, is clear
    const { width: w, height: h } = this.painted, c = this.painted.getContext('2d'), pixels = c.createImageData(w, h)
    const all = new Uint32Array(pixels.data.buffer)
    const colours = this.panel.setup.classes.map((_, k) => {
      const n = parseInt(this.colour(k).slice(1), 16)
      return k ? (130 << 24 | (n & 255) << 16 | (n >> 8 & 255) << 8 | n >> 16) >>> 0 : 0
    })
    let painted = 0
    for (let i = 0; i < all.length; i++) { all[i] = colours[this.mask[i]] || 0; painted += this.mask[i] > 0 }
    c.putImageData(pixels, 0, 0)
    this.painted.dataset.painted = painted
    this.paint()
  }
  paint(scale = this.scale) {
    // the brush, and how clear the mask is
    this.scale = scale
    if (!this.painted || !scale) return
    this.painted.style.opacity = OPACITIES[this.opacity]
    this.ring.hidden = !this.pointer
    if (!this.pointer) return
    const r = this.radius * scale, [x, y] = this.pointer.map(v => v * scale)
    Object.assign(this.ring.style, { left: `${x - r}px`, top: `${y - r}px`, width: `${2 * r}px`, height: `${2 * r}px`, borderColor: this.colour(this.active) })
  }

  // -- keys and answers
  key(e) {
    if (e.target === this.file) {
      if (e.key === 'Enter' && this.file.value.trim()) { this.panel.focus(); this.panel.say('file', this.file.value.trim()); return true }
      if (e.key === 'Escape') { this.panel.focus(); return true }
      return 'typing'
    }
    return super.key(e)
  }
  save() { this.panel.say('label', null, [this.mask.slice()], [this.image.naturalWidth, this.image.naturalHeight]) }
  propose() { this.edit(() => this.mask.set(this.panel.item.guessMask)) }
  accept() { this.panel.say('accept', null) }
  reject() { this.edit(() => this.mask.fill(0)) }
}
