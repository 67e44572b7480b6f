// The list of all keys.

import { make } from './dom.js'
import { COMMANDS, shownKey } from './keys.js'

export function helpLines({ kind, classes }, searching) {
  const lines = COMMANDS.map(([, shown, , meaning]) => [shownKey(shown, searching), meaning])
  lines.push(['ctrl z', 'as backspace'], [searching ? `shift ${shownKey('f', true)}` : 'shift f', 'flag with a comment'])
  lines.push(['+ and -', 'zoom in and out; the wheel does with ctrl'], ['.', 'show the whole picture'], ['shift and mouse', 'pan'], ['↑ ↓ page up, page down', 'scroll a long text; pan a picture'])
  lines.unshift(...OF_KIND[kind]({ classes, searching }))
  return lines
}

const search = ['letters', 'search for a class; enter takes the first, ↓ goes on, / searches digits']
const digits = (searching, what) => ['1-9, 0', searching ? `${what}: the one with that number, while nothing is typed` : what]
const OF_KIND = {
  class: ({ searching }) => [digits(searching, 'choose a class'), searching ? search : ['a letter', 'choose the class with that letter']],
  labels: ({ searching }) => [digits(searching, 'add or remove a label'), searching ? search : ['a letter', 'add or remove the label with that letter']],
  boxes: ({ searching }) => [
    digits(searching, 'class of the next box, or of the selected one'), ...searching ? [search] : [],
    ['mouse', 'drag to draw a box; click to select one, then drag it or its handles'], ['alt and mouse', 'draw over a selected box'], ['delete', 'delete the selected box'], ['escape', 'select none'],
  ],
  mask: ({ searching }) => [
    digits(searching, 'class to paint'), ...searching ? [search] : [], ['mouse', 'paint'], ['[ and ]', 'smaller or larger brush'],
    [shownKey('e', searching), 'erase: paint the first class'], [shownKey('o', searching), 'mask fainter, hidden, as before'],
  ],
  value: () => [['escape', 'leave the field, so that all keys below work'], ['backspace', 'in an empty, unedited field: undo the last answer']],
  text: () => [['escape', 'leave the text field, so that the keys below work'], ['shift enter', 'start a new line'], ['backspace', 'in an empty, unedited field: undo the last answer']],
}

export function showHelp(box, lines) {
  box.replaceChildren()
  for (const [key, meaning] of lines) {
    const row = make('div', 'line', undefined, box)
    make('kbd', 'key', key, row)
    make('span', '', meaning, row)
  }
}
