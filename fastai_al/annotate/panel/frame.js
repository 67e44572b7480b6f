// How large may the panel be, so that all of it is in view?

const LOW = 470               // pixels; in a lower panel words give way to the picture
const NARROW = 560            // pixels; in a narrower one buttons are smaller
const MARGIN = 20
const LOWEST = 210
const UNKNOWN = 600           // height in an output that is a page of its own and grows with what it shows

export class Frame {
  constructor(root) {
    this.root = root
    this.scroller = root.closest('.jp-WindowedPanel-outer') || root.closest('.jp-Notebook')
    this.fit = this.fit.bind(this)
    this.watch = new ResizeObserver(this.fit)
    this.watch.observe(root.parentElement || root)
    if (this.scroller) this.watch.observe(this.scroller)
    window.addEventListener('resize', this.fit)
    this.fit()
  }
  close() { this.watch.disconnect(); window.removeEventListener('resize', this.fit) }
  room() {
    if (this.scroller) return this.scroller.clientHeight
    return window.top === window ? window.innerHeight : Math.max(UNKNOWN, window.innerHeight)
  }
  fit() {
    const height = Math.max(LOWEST, this.room() - MARGIN), width = this.root.clientWidth
    this.root.style.setProperty('--fal-room', `${height}px`)
    this.root.dataset.size = height < LOW ? 'low' : width < NARROW ? 'narrow' : 'large'
  }
  reveal() {
    // scroll no further than needed
    const { top, bottom } = this.root.getBoundingClientRect()
    const from = this.scroller?.getBoundingClientRect() ?? { top: 0, bottom: window.innerHeight }
    if (top < from.top || bottom > from.bottom) this.root.scrollIntoView({ block: 'nearest' })
  }
}
