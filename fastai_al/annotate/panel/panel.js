// The panel: it asks the kernel for items, sends the answers of a person, and shows the replies. All state is in the kernel.

import { make } from './dom.js'
import { COMMANDS, commandIn, isSaveNotebook, isScroll, isUndo, letterIn, passOn, shownKey, withAlt, withControl, zoomOf } from './keys.js'
import { helpLines, showHelp } from './help.js'
import { Lens } from './lens.js'
import { Frame } from './frame.js'
import { Kernel } from './kernel.js'
import { Strip } from './strip.js'
import { ClassAnswer, LabelsAnswer } from './classes.js'
import { FieldAnswer } from './field.js'
import { BoxesAnswer } from './boxes.js'
import { MaskAnswer } from './mask.js'

const ANSWERS = { class: ClassAnswer, labels: LabelsAnswer, value: FieldAnswer, text: FieldAnswer, boxes: BoxesAnswer, mask: MaskAnswer }
const MANY = 10         // classes; of more, letters search
const AHEAD = 3         // items that are loaded in advance
const KEPT = 12         // items on either side that stay loaded
const PATIENCE = 3000   // milliseconds until the page says that the kernel is slow
const LATE = 1000       // milliseconds until the page says that an item is late
const PROPOSED = 'The guess is on the screen now. Save it in place of the earlier answer: press enter or accept again.'

export class Panel {
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
    for (const part of [this.lens, this.frame, this.kernel]) part?.close()
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
    this.searching = setup.classes.length > MANY
    this.root.dataset.kind = setup.kind
    this.build()
    this.frame = new Frame(this.root)
    this.kernel = new Kernel(this.model, () => this.tell('The kernel has stopped or was restarted. Answers so far are saved. Run the cell again to go on.', true))
    this.answer = new ANSWERS[setup.kind](this)
    this.root.addEventListener('pointerup', e => { if (!e.target.closest('input, textarea')) this.focus() })
    this.tell('')
    this.progress(setup.progress)
    this.strip.show(setup.recent)
    this.go(setup.place ?? 0, setup.place === null)
    this.grabFocus()
  }
  build() {
    const { setup } = this
    this.keys = this.buildKeys()
    const top = make('div', 'top'), head = make('div', 'head', undefined, top)
    this.count = make('span', 'count', '', head)
    this.bar = make('progress', 'bar', undefined, head)
    this.rate = make('span', 'rate', '', head)
    const asked = make('div', 'ask', undefined, top)
    make('span', 'question', setup.instructions, asked).title = setup.instructions
    this.name = make('span', 'name', '', asked)
    const view = make('div', 'view')
    this.stage = make('div', 'stage', undefined, view)
    this.lens = new Lens(this.stage)
    this.zooms = this.buildZooms(view)
    this.about = make('div', 'about')
    this.answers = make('div', 'answers')
    const strip = make('div', 'strip')
    this.strip = new Strip(this, strip)
    this.comment = this.buildComment()
    this.helped = make('div', 'help'); this.helped.hidden = true
    showHelp(this.helped, helpLines(setup, this.searching))
    this.root.replaceChildren(this.keys, top, view, this.about, this.answers, this.buildCommands(), this.comment, strip, this.status, this.helped)
  }
  buildKeys() {
    // an input without a face: some notebooks leave keys alone only in one
    const keys = make('input', 'keys')
    Object.assign(keys, { type: 'text', inputMode: 'none', autocomplete: 'off' })
    keys.setAttribute('aria-label', `keys for labelling: ${this.shown('h')} for help`)
    keys.addEventListener('input', () => { keys.value = '' })
    return keys
  }
  buildZooms(view) {
    const box = make('div', 'zooms', undefined, view)
    const zoom = (sign, title, act) => { const b = this.button(box, sign, '', act, 'zoom'); b.title = title; b.setAttribute('aria-label', title) }
    zoom('−', 'zoom out: -', () => this.lens.by(1 / 1.5))
    zoom('+', 'zoom in: +, or the wheel with ctrl', () => this.lens.by(1.5))
    zoom('⤢', 'show the whole picture: .', () => this.lens.by(0))
    zoom('◐', 'contrast', () => this.tell(`Contrast: ${this.lens.nextContrast()}.`))
    return box
  }
  buildCommands() {
    const box = make('div', 'commands'), { setup } = this
    this.buttons = {}
    for (const [name, key, , title] of COMMANDS) {
      if (name === 'save' && !setup.review && setup.kind === 'class') continue
      const b = this.buttons[name] = this.button(box, name, this.shown(key), () => this.command(name), 'command')
      b.title = title
      b.setAttribute('aria-label', name)
    }
    return box
  }
  buildComment() {
    const field = make('input', 'comment')
    Object.assign(field, { type: 'text', placeholder: 'why a second opinion? enter saves, escape leaves', spellcheck: true })
    field.setAttribute('aria-label', 'comment on the flag')
    field.hidden = true
    return field
  }
  button(parent, text, key, act, kind = 'tool') {
    const b = make('button', kind, undefined, parent)
    b.type = 'button'; b.tabIndex = -1
    make('span', '', text, b)
    if (key) { make('kbd', 'key', key, b); b.setAttribute('aria-keyshortcuts', key) }
    b.addEventListener('click', () => { if (!this.busy()) act() })
    return b
  }
  shown(key) { return shownKey(key, this.searching) }

  // -- focus
  hasFocus() { return this.root.contains(this.root.getRootNode().activeElement) }
  focus() { ((!this.answers.hidden && this.answer?.sink) || this.keys)?.focus({ preventScroll: true }) }
  grabFocus() {
    // the notebook moves the focus after a cell has run, so set it again a few times, unless somebody clicks elsewhere
    if (!this.setup.autofocus) return
    let left = 8, stopped = false
    const stop = () => { stopped = true; for (const kind of ['pointerdown', 'keydown', 'wheel']) document.removeEventListener(kind, stop, true) }
    for (const kind of ['pointerdown', 'keydown', 'wheel']) document.addEventListener(kind, stop, true)
    const again = () => {
      if (stopped || !this.root.isConnected || left-- <= 0) return stop()
      if (!this.hasFocus()) this.focus()
      this.frame.reveal()
      setTimeout(again, 120)
    }
    again()
  }

  // -- items
  receive(message, buffers) {
    const old = this.cache.get(message.place)
    const whole = message.view || message.error
    if (whole ? old?.ready : !old?.ready) return                     // already loaded; or a change of an item that is not loaded
    if (!whole && this.setup.kind === 'mask' && JSON.stringify(old.said) !== JSON.stringify(message.said)) old.stale = true      // its mask has changed
    const item = whole ? message : Object.assign(old, message)
    if (message.view?.kind === 'image') this.loadImage(item, buffers[0])
    else item.ready ??= Promise.resolve()
    for (const name of ['mask', 'guessMask']) if (message[name] !== undefined) { const { buffer, byteOffset, byteLength } = buffers[message[name]]; item[name] = new Uint8Array(buffer, byteOffset, byteLength) }
    if (old?.url && old.url !== item.url) URL.revokeObjectURL(old.url)
    this.cache.set(message.place, item)
    if (this.place === message.place && this.item !== item) this.paint()
    else if (this.item === item && !this.pending) this.refresh()         // answered in another view
  }
  loadImage(item, bytes) {
    item.url = URL.createObjectURL(new Blob([bytes], { type: item.view.mime }))
    item.image = new Image()
    Object.assign(item.image, { src: item.url, className: 'fal-image', alt: item.name, draggable: false })
    item.ready = item.image.decode().catch(() => { item.broken = 'This image cannot be shown.' })
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
  leave() {
    if (this.item && !this.item.broken && !this.item.error) this.item.draft = this.answer.draft?.()
    this.item = null
    this.comment.hidden = true
  }
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
    if (item.image || !this.answer.sheet) this.answer.show(item)
    item.draft = undefined
    this.paintStage(item)
    this.count.textContent = `${place + 1} of ${this.setup.of} · ${this.setup.by}`
    this.name.textContent = this.name.title = item.view?.text === item.name ? '' : item.name      // a text is its own name
    this.describe(item)
    requestAnimationFrame(() => { if (this.place === place) this.root.dataset.place = place })
    this.shownAt = performance.now()
    if (this.hasFocus()) { if (this.answer.sink) this.focus(); this.frame.reveal() }
    this.strip.keep(place, item.broken ? null : item.image)
    this.drain()
  }
  paintStage(item) {
    const image = item.view?.kind === 'image' && !item.broken && !item.error
    this.stage.className = `fal-stage fal-${image ? 'of-image' : 'of-words'}`
    this.zooms.hidden = !image
    if (image) {
      const sheet = this.answer.sheet ? this.answer.sheet(item.image) : make('div', 'sheet')
      if (!this.answer.sheet) sheet.append(item.image)
      this.lens.show(sheet, item.image, scale => this.answer.paint?.(scale))
      return
    }
    this.lens.clear()
    if (item.broken || item.error) this.stage.replaceChildren(make('div', 'text', item.broken || item.error))
    else if (item.view.kind === 'text') this.stage.replaceChildren(make('div', 'text', item.view.text))
    else this.stage.replaceChildren(this.table(item.view.rows))
    this.stage.scrollTop = 0
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
    if (item.heldOut) parts.push('hold-out item: no guess is shown')
    if (item.said) parts.push({ label: 'your answer is saved', ignore: 'ignored', skip: 'skipped' }[item.said.kind])
    if (item.flagged && item.comment) parts.push(`flagged: ${item.comment}`)
    this.about.textContent = this.about.title = parts.join(' · ')
    this.buttons.flag.setAttribute('aria-pressed', Boolean(item.flagged))
    for (const name of ['accept', 'reject']) this.buttons[name].disabled = item.guess === undefined
    if (this.setup.kind !== 'class') return
    this.answer.buttons.forEach((b, i) => b.classList.toggle('fal-guess', item.guess === i))
    if (this.answer.buttons[item.guess]) this.answer.picker.front(item.guess)
  }
  end() {
    this.leave()
    clearTimeout(this.late)
    this.place = this.setup.of
    delete this.root.dataset.place
    this.lens.clear()
    this.zooms.hidden = true
    this.stage.className = 'fal-stage fal-of-words'
    this.stage.replaceChildren(this.ending())
    this.count.textContent = `${this.setup.of} of ${this.setup.of} · ${this.setup.by}`
    this.name.textContent = this.about.textContent = ''
    const had = this.hasFocus()
    this.answers.hidden = true
    if (had) this.keys.focus({ preventScroll: true })
    this.root.dataset.ended = 'true'
    this.drain()
  }
  ending() {
    // what was done, and what to do next
    const { done, of, label, skip, ignore, flag } = this.counts, open = of - done, box = make('div', 'text')
    make('p', 'done', open ? `End of the list. ${open} of ${of} items have no answer: → goes to the first.` : `All ${of} items are done.`, box)
    make('p', '', `${label} labelled, ${skip} skipped, ${ignore} ignored, ${flag} flagged.`, box)
    if (!open) make('p', 'next', this.setup.next, box)
    make('p', 'note', '← goes back, backspace undoes the last answer.', box)
    return box
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
    if (!this.item || this.item.error && !['ignore', 'skip', 'flag'].includes(kind)) return this.tell('This item cannot be labelled. Skip or ignore it.')
    const seconds = (performance.now() - this.shownAt) / 1000
    if (kind !== 'flag') this.spent = seconds
    this.commit({ type: 'say', kind, place: this.place, value, size, seconds }, buffers)
  }
  commit(message, buffers) {
    this.pending = { ...message, seq: ++this.seq }
    this.root.dataset.pending = this.seq
    this.send(this.pending, buffers)
    this.slow = setTimeout(() => this.tell(this.kernel.silence(), true), PATIENCE)
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
      this.settled(this.item)
    }
    this.progress(message.progress)
    if (message.recent) this.strip.show(message.recent)
    if (message.to === null) this.go(this.setup.of, true)
    else if (message.to !== undefined && (message.to !== this.place || this.item?.stale)) this.go(message.to)
    else { if (this.item) this.refresh(); this.drain() }
  }
  settled(item) {
    // what was edited is saved: no draft of it is kept
    if (this.answer.steps) this.answer.steps.list = []
    else this.answer.changed = false
    if (item) item.draft = undefined
  }
  refresh() {
    const said = JSON.stringify(this.item.said)
    if (said !== this.drawn && this.answer.draft?.() === undefined) {
      if (this.item.stale) return this.go(this.place)
      this.drawn = said
      this.answer.show(this.item)
      this.answer.paint?.()
    }
    this.describe(this.item)
  }
  drain() { while (this.waiting.length && !this.pending && (this.root.dataset.ended || this.item && this.cache.get(this.place) === this.item)) this.waiting.shift()() }

  // -- keys
  onKey(e) {
    if (isSaveNotebook(e)) return this.saveNotebook(e)
    if (withControl(e) && !isUndo(e)) return      // not ours: copy, paste, the keys of the browser and of the notebook
    e.stopPropagation()
    if (!this.setup || e.isComposing || e.altKey && !this.takesAlt(e) && !e.getModifierState('AltGraph')) return
    if (e.repeat && !this.mayRepeat(e)) return e.preventDefault()   // a key held down counts once
    if (this.busy()) return this.keepForLater(e)
    const used = this.press(e)
    if (used && used !== 'typing') e.preventDefault()
  }
  saveNotebook(e) {
    // the notebook does not look at keys pressed in the panel, so press it again outside
    if (this.root.closest('.jp-Notebook')) { e.preventDefault(); e.stopPropagation(); passOn(e, this.root.parentElement) }
  }
  takesAlt(e) { return this.searching && withAlt(e) && letterIn(e, true) !== '' }
  mayRepeat(e) {
    if (this.busy()) return false
    if (isScroll(e) || zoomOf(e) && !this.isTyping(e)) return true
    if (!this.isTyping(e)) return false
    return e.key.length === 1 && (this.setup.kind !== 'value' || /^[-+0-9.,eE]$/.test(e.key)) || e.target.value !== '' && /^(Backspace|Delete|Arrow)/.test(e.key)
  }
  isTyping(e) { return ['INPUT', 'TEXTAREA'].includes(e.target.tagName) && e.target !== this.keys }
  keepForLater(e) {
    // typed ahead: pressed again when the item is there, with the meaning that it had when it was pressed
    if (['Tab', 'Shift', 'Alt', 'Control', 'Meta'].includes(e.key)) return
    e.preventDefault()
    const { key, code, shiftKey, altKey, ctrlKey, metaKey } = e, choice = this.answer?.picker?.atDigit(key)
    this.waiting.push(() => {
      const at = this.root.getRootNode().activeElement, inside = this.root.contains(at) && ['INPUT', 'TEXTAREA'].includes(at.tagName)
      this.press({ key, code, shiftKey, altKey, ctrlKey, metaKey, choice, target: inside ? at : this.keys })
    })
  }
  busy() { return Boolean(this.pending) || !this.root.dataset.ended && (!this.item || this.cache.get(this.place) !== this.item) }
  press(e) {
    if (e.target === this.comment) return this.commentKey(e)
    const used = this.root.dataset.ended ? false : this.answer.key(e)
    if (used) {
      if (used === 'typing' && !(e instanceof Event)) this.typeFor(e)
      return used
    }
    if (this.lensKey(e)) return true
    const command = commandIn(e, this.searching)
    if (!command) return false
    if (command === 'flag' && e.shiftKey) this.openComment()
    else this.command(command)
    return true
  }
  typeFor(e) {
    // a queued key goes into its field
    const f = e.target, { selectionStart: from, selectionEnd: to } = f
    if (e.key.length === 1) f.setRangeText(e.key, from, to, 'end')
    else if (e.key === 'Enter' && f.tagName === 'TEXTAREA') f.setRangeText('\n', from, to, 'end')
    else if (e.key === 'Backspace') f.setRangeText('', from === to ? Math.max(0, from - 1) : from, to, 'end')
    f.dispatchEvent(new Event('input'))
  }
  lensKey(e) {
    // scroll, pan or zoom
    if (e.altKey || e.ctrlKey || e.metaKey) return false
    if (!this.helped.hidden && e.key === 'Escape') { this.helped.hidden = true; return true }
    const factor = zoomOf(e)
    if (factor !== undefined && this.lens.sheet) { this.lens.by(factor); return true }
    if (!isScroll(e)) return false
    const page = this.stage.clientHeight * .85, by = { ArrowUp: -60, ArrowDown: 60, PageUp: -page, PageDown: page, Home: -1e6, End: 1e6 }[e.key]
    const box = this.helped.hidden ? this.stage : this.helped
    if (this.lens.sheet && this.helped.hidden) { if (this.lens.zoom > 1) this.lens.pan(0, -by) } else box.scrollTop += by
    return true
  }

  // -- commands
  command(name) {
    const ended = this.root.dataset.ended, guess = this.item?.guess
    if (name === 'help') { this.helped.hidden = !this.helped.hidden; this.helped.scrollTop = 0; return }
    if (name === 'previous') return this.go(this.place - 1)
    if (name === 'next') return ended ? this.commit({ type: 'next', place: -1 }) : this.go(this.place + 1)
    if (name === 'undo') return !ended && this.answer.back?.() ? this.tell('The edit is undone.') : this.commit({ type: 'undo' })
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
  openComment() {
    if (!this.item) return
    this.comment.hidden = false
    this.comment.value = this.item.comment ?? ''
    this.comment.focus({ preventScroll: true })
  }
  commentKey(e) {
    if (e.key !== 'Enter' && e.key !== 'Escape') { if (!(e instanceof Event)) this.typeFor(e); return 'typing' }
    const text = this.comment.value.trim()
    this.comment.hidden = true
    this.focus()
    if (e.key === 'Enter' && text) this.say('flag', text)
    return true
  }
  tell(text, alarm = false) { this.status.textContent = text; this.status.classList.toggle('fal-alarm', alarm) }
}

export default {
  render({ model, el }) {
    const panel = new Panel(model, el)
    return () => panel.close()
  },
}
