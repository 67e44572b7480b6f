// The edits of one item that can be undone: what was there before each.

const MOST = 50

export class Steps {
  constructor(list = []) { this.list = list }
  get any() { return this.list.length > 0 }
  push(state) { this.list.push(state); if (this.list.length > MOST) this.list.shift() }
  pop() { return this.list.pop() }
}
