// Shows an image as large as its frame, and lets a person zoom, pan and change the contrast.

const CONTRASTS = [['', 'as it is'], ['contrast(1.8)', 'more contrast'], ['brightness(2)', 'brighter'], ['invert(1)', 'inverted']]
const CLOSEST = 24      // screen pixels per pixel of the image at most, but eight times the whole image at least

export class Lens {
  constructor(frame) {
    Object.assign(this, { frame, sheet: null, zoom: 1, x: .5, y: .5, contrast: 0 })
    frame.addEventListener('wheel', e => this.wheel(e), { passive: false })
    frame.addEventListener('pointerdown', e => this.grab(e), true)
    frame.addEventListener('pointermove', e => this.drag(e), true)
    for (const kind of ['pointerup', 'pointercancel']) frame.addEventListener(kind, e => this.release(e), true)
    this.watch = new ResizeObserver(() => this.place())
    this.watch.observe(frame)
  }
  close() { this.watch.disconnect() }

  // -- what is shown
  show(sheet, image, drawn) {
    // `sheet` holds the image and what is drawn over it; `drawn` is called with its scale
    Object.assign(this, { sheet, image, drawn, width: image.naturalWidth, height: image.naturalHeight, zoom: 1, x: .5, y: .5 })
    this.frame.replaceChildren(sheet)
    this.applyContrast()
    this.place()
  }
  clear() { this.sheet = null }
  place() {
    if (!this.sheet || !this.frame.clientWidth) return
    const { clientWidth: w, clientHeight: h } = this.frame
    this.fitted = Math.min(w / this.width, h / this.height)
    const scale = this.scale = this.fitted * this.zoom, [sw, sh] = [scale * this.width, scale * this.height]
    const inside = (room, size, middle) => size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, room / 2 - middle * size))
    const left = inside(w, sw, this.x), top = inside(h, sh, this.y)
    if (sw > w) this.x = (w / 2 - left) / sw
    if (sh > h) this.y = (h / 2 - top) / sh
    Object.assign(this.sheet.style, { left: `${left}px`, top: `${top}px`, width: `${sw}px`, height: `${sh}px` })
    this.sheet.classList.toggle('fal-pixels', scale >= 3)
    this.frame.classList.toggle('fal-zoomed', this.zoom > 1)
    this.frame.dataset.zoom = this.zoom.toFixed(2)
    this.drawn?.(scale)
  }

  // -- zoom, pan, contrast
  by(factor, clientX, clientY) {
    // zoom about a point of the screen, or about the middle; 0: fit
    if (!this.sheet) return
    const frame = this.frame.getBoundingClientRect(), sheet = this.sheet.getBoundingClientRect()
    const px = (clientX ?? frame.left + frame.width / 2), py = (clientY ?? frame.top + frame.height / 2)
    const u = (px - sheet.left) / sheet.width, v = (py - sheet.top) / sheet.height
    this.zoom = factor ? Math.min(Math.max(this.zoom * factor, 1), Math.max(8, CLOSEST / this.fitted)) : 1
    const sw = this.fitted * this.zoom * this.width, sh = this.fitted * this.zoom * this.height
    this.x = u - (px - frame.left - frame.width / 2) / sw      // the point stays where it is
    this.y = v - (py - frame.top - frame.height / 2) / sh
    this.place()
  }
  pan(dx, dy) {
    const { width, height } = this.sheet.getBoundingClientRect()
    this.x -= dx / width; this.y -= dy / height
    this.place()
  }
  nextContrast() {
    this.contrast = (this.contrast + 1) % CONTRASTS.length
    this.applyContrast()
    return CONTRASTS[this.contrast][1]
  }
  applyContrast() { if (this.sheet) this.image.style.filter = CONTRASTS[this.contrast][0] }

  // -- the mouse
  wheel(e) {
    if (!this.sheet) return
    if (e.ctrlKey || e.metaKey) { e.preventDefault(); this.by(Math.exp(-e.deltaY / 300), e.clientX, e.clientY) }
    else if (this.zoom > 1) { e.preventDefault(); e.shiftKey && !e.deltaX ? this.pan(-e.deltaY, 0) : this.pan(-e.deltaX, -e.deltaY) }
  }
  grab(e) {
    const still = !this.frame.querySelector('.fal-canvas')      // nothing is drawn here, so a plain drag pans
    if (!this.sheet || this.zoom === 1 || !(e.button === 1 || e.button === 0 && (e.shiftKey || still))) return
    e.preventDefault(); e.stopPropagation()
    this.held = [e.clientX, e.clientY]
    this.frame.setPointerCapture(e.pointerId)
  }
  drag(e) {
    if (!this.held) return
    e.stopPropagation()
    this.pan(e.clientX - this.held[0], e.clientY - this.held[1])
    this.held = [e.clientX, e.clientY]
  }
  release(e) { if (this.held) { e.stopPropagation(); this.held = null } }
}
