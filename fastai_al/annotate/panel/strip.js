// The last answers, each of which leads back to its item.

import { make } from './dom.js'

const HEIGHT = 24       // screen pixels of a picture in the strip

export class Strip {
  constructor(panel, box) { Object.assign(this, { panel, box, pictures: new Map() }) }
  keep(place, image) {
    // a small copy of an image, for as long as it is among the last answers
    if (!image || this.pictures.has(place)) return
    const canvas = document.createElement('canvas')
    canvas.height = HEIGHT; canvas.width = Math.min(3 * HEIGHT, Math.max(8, Math.round(HEIGHT * image.naturalWidth / image.naturalHeight)))
    canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height)
    this.pictures.set(place, canvas)
  }
  show(answers) {
    // the latest first
    this.box.replaceChildren()
    this.box.hidden = !answers.length
    const kept = new Set(answers.map(a => a.place))
    for (const place of this.pictures.keys()) if (!kept.has(place) && place !== this.panel.place) this.pictures.delete(place)
    for (const { place, words, name } of answers) {
      const b = this.panel.button(this.box, words, '', () => this.panel.go(place), 'answer')
      b.title = `${name}: ${words}. Go back to it.`
      if (this.pictures.has(place)) b.prepend(this.pictures.get(place))
    }
  }
}
