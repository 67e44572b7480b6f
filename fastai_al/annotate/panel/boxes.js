// Boxes, each of a class: drawn, selected by a click, moved, resized by their handles.

import { draw } from './dom.js'
import { DrawingAnswer } from './drawing.js'
import { Strangers } from './classes.js'
import { Steps } from './steps.js'

const GRIP = 7          // screen pixels within which the pointer takes a handle
const ROOMY = 40        // screen pixels of a side that has a handle in its middle
const LEAST = 4         // screen pixels; what is smaller is a click
const HANDLES = [[0, 0], [.5, 0], [1, 0], [1, .5], [1, 1], [.5, 1], [0, 1], [0, .5]]      // shares of width and height
const CURSORS = { '0,0': 'nwse', '1,1': 'nwse', '1,0': 'nesw', '0,1': 'nesw', '0.5,0': 'ns', '0.5,1': 'ns', '0,0.5': 'ew', '1,0.5': 'ew' }

const clamp = (value, least, most) => Math.min(Math.max(value, least), most)
const holds = ([l, t, r, b], [x, y]) => l <= x && x <= r && t <= y && y <= b
const sorted = ([l, t, r, b]) => [Math.min(l, r), Math.min(t, b), Math.max(l, r), Math.max(t, b)]

export class BoxesAnswer extends DrawingAnswer {
  constructor(panel) {
    super(panel)
    this.steps = new Steps()
    this.panel.button(this.tools, 'delete the box', 'del', () => this.remove())
    this.strangers = new Strangers(panel, i => this.activated(i))
  }
  get changed() { return this.steps.any }

  // -- the item
  show(item) {
    const from = item.said?.kind === 'label' ? item.said.value : this.panel.setup.review ? item.standing : null
    const scores = from ? undefined : item.scores
    this.selected = this.drag = null; this.picked = false
    this.picker.settle(); this.activate(this.active)
    this.strangers.show(item)
    this.boxes = item.draft?.boxes ?? this.boxesIn(from || item.guess || { boxes: [], labels: [] }, item, scores)
    this.steps = new Steps(item.draft?.steps)
  }
  sheet(image) { return this.sheetFor(image, draw('svg', 'canvas', {})) }
  draft() { return this.changed ? { boxes: this.boxes, steps: this.steps.list } : undefined }
  boxesIn(label, item, scores) {
    const [kx, ky] = this.scaleOf(item)
    return label.boxes.map((b, i) => ({ at: [b[0] / kx, b[1] / ky, b[2] / kx, b[3] / ky], label: label.labels[i], score: scores?.[i] }))
  }
  scaleOf(item) { return item.image ? [item.view.size[0] / item.image.naturalWidth, item.view.size[1] / item.image.naturalHeight] : [1, 1] }

  // -- edits, each of which can be undone
  edit(change) {
    this.steps.push(this.boxes.map(b => ({ ...b })))
    change()
    this.picked = false
    this.paint()
  }
  back() {
    if (!this.steps.any) return false
    this.boxes = this.steps.pop()
    this.selected = null; this.picked = false
    this.paint()
    return true
  }
  activated(i) { if (this.selected !== null && this.selected !== undefined && this.boxes[this.selected].label !== i) this.edit(() => Object.assign(this.boxes[this.selected], { label: i, score: undefined })) }
  remove() {
    if (this.selected === null) return this.panel.tell('Click a box, then delete it.')
    this.edit(() => { this.boxes.splice(this.selected, 1); this.selected = this.boxes.length ? this.boxes.length - 1 : null })
  }
  replace(label) { this.edit(() => { this.boxes = this.boxesIn(label, this.panel.item); this.selected = null }) }

  // -- the pointer
  handlesOf({ at: [l, t, r, b] }) {
    // a small box has handles at its corners only, so that its middle moves it
    const [wide, high] = [(r - l) * this.scale >= ROOMY, (b - t) * this.scale >= ROOMY]
    return HANDLES.filter(([u, v]) => (u !== .5 || wide) && (v !== .5 || high))
  }
  handleAt([x, y]) {
    // the handle of the selected box under a point
    const box = this.boxes?.[this.selected]
    if (!box) return null
    const [l, t, r, b] = box.at, near = Math.min(GRIP / this.scale, (r - l) / 3, (b - t) / 3)
    return this.handlesOf(box).find(([u, v]) => Math.hypot(x - l - u * (r - l), y - t - v * (b - t)) <= near) ?? null
  }
  down(p, e) {
    const handle = e.altKey ? null : this.handleAt(p), box = this.boxes[this.selected]
    if (handle) this.drag = { kind: 'resize', handle, from: p, old: box.at, at: box.at }
    else if (box && this.picked && !e.altKey && holds(box.at, p)) this.drag = { kind: 'move', from: p, old: box.at, at: box.at }
    else this.drag = { kind: 'draw', from: p, at: [...p, ...p] }
  }
  move(p, held) {
    if (!this.drag || !held) return this.point(p)
    this.drag.at = this.dragged(p)
    this.drag.moved ||= Math.hypot(p[0] - this.drag.from[0], p[1] - this.drag.from[1]) * this.scale >= LEAST
    this.paint()
  }
  point(p) {
    const handle = this.handleAt(p), box = this.boxes?.[this.selected]
    this.layer.style.cursor = handle ? `${CURSORS[handle]}-resize` : box && this.picked && holds(box.at, p) ? 'move' : ''
  }
  dragged([x, y]) {
    // the box under the pointer while it moves, within the image
    const { kind, from, old, handle } = this.drag, { naturalWidth: w, naturalHeight: h } = this.image
    if (kind === 'draw') return sorted([clamp(from[0], 0, w), clamp(from[1], 0, h), clamp(x, 0, w), clamp(y, 0, h)])
    const [l, t, r, b] = old
    let dx = x - from[0], dy = y - from[1]
    if (kind === 'move') {
      dx = clamp(dx, -l, w - r); dy = clamp(dy, -t, h - b)
      return [l + dx, t + dy, r + dx, b + dy]
    }
    const [u, v] = handle, moved = [u === 0 ? l + dx : l, v === 0 ? t + dy : t, u === 1 ? r + dx : r, v === 1 ? b + dy : b]
    return sorted([clamp(moved[0], 0, w), clamp(moved[1], 0, h), clamp(moved[2], 0, w), clamp(moved[3], 0, h)])
  }
  up(p) {
    const { drag } = this
    if (!drag) return
    const at = this.dragged(p), large = Math.min(at[2] - at[0], at[3] - at[1]) * this.scale >= LEAST
    this.drag = null
    if (drag.kind === 'draw' && large) this.edit(() => { this.boxes.push({ at, label: this.active }); this.selected = this.boxes.length - 1 })
    else if (drag.kind !== 'draw' && drag.moved && large) this.edit(() => Object.assign(this.boxes[this.selected], { at, score: undefined }))
    else if (!drag.moved) this.select(drag.from)
    this.picked ||= drag.kind === 'move'
    this.paint()
  }
  select(p) {
    // the topmost box under a click; a further click takes the one below it
    const here = this.boxes.map((b, i) => i).filter(i => holds(this.boxes[i].at, p)).reverse()
    this.selected = here[(here.indexOf(this.selected) + 1) % here.length] ?? null
    this.picked = this.selected !== null
  }
  cancel() { this.drag = null; this.paint() }

  // -- keys
  key(e) {
    if (!e.ctrlKey && !e.metaKey && !this.sink?.value) {
      if (e.key === 'Delete' || e.key === 'Backspace' && this.picked) { this.remove(); return true }
      if (e.key === 'Escape' && this.selected !== null) { this.selected = null; this.picked = false; this.cancel(); return true }
    }
    return super.key(e)
  }

  // -- drawing
  paint(scale = this.scale) {
    this.scale = scale
    if (!this.layer || !this.boxes || !scale) return
    this.layer.replaceChildren()
    this.layer.dataset.boxes = this.boxes.length
    this.boxes.forEach((box, i) => {
      const at = this.drag && this.drag.kind !== 'draw' && i === this.selected ? this.drag.at : box.at
      this.paintBox(at, box, i === this.selected)
    })
    if (this.selected !== null && !this.drag) this.paintHandles(this.boxes[this.selected])
    if (this.drag?.kind === 'draw') this.paintBox(this.drag.at, { label: this.active }, false)
  }
  paintBox([l, t, r, b], box, selected) {
    const s = this.scale, colour = this.colour(box.label)
    const shape = { x: l * s, y: t * s, width: (r - l) * s, height: (b - t) * s, fill: selected ? colour : 'none', 'fill-opacity': .12, stroke: colour, 'stroke-width': selected ? 4 : 2 }
    if (colour === '#888888') shape['stroke-dasharray'] = '6 4'
    draw('rect', '', shape, this.layer)
    const name = [...this.panel.setup.classes, ...(this.panel.item?.extra ?? [])][box.label] ?? ''
    const words = box.score === undefined ? name : `${name} ${Math.round(100 * box.score)}%`
    draw('text', 'tag', { x: l * s + 3, y: t * s > 16 ? t * s - 5 : t * s + 14, fill: colour }, this.layer).textContent = words
  }
  paintHandles(box) {
    const s = this.scale, { at: [l, t, r, b], label } = box
    for (const [u, v] of this.handlesOf(box)) draw('rect', 'handle', { x: (l + u * (r - l)) * s - 4, y: (t + v * (b - t)) * s - 4, width: 8, height: 8, stroke: this.colour(label) }, this.layer)
  }

  // -- answers
  save() {
    const [kx, ky] = this.scaleOf(this.panel.item)
    this.panel.say('label', { boxes: this.boxes.map(({ at: b }) => [b[0] * kx, b[1] * ky, b[2] * kx, b[3] * ky]), labels: this.boxes.map(b => b.label) })
  }
  propose(guess) { this.replace(guess) }
  accept(guess) { this.panel.say('label', guess) }
  reject() { this.replace({ boxes: [], labels: [] }) }
}
