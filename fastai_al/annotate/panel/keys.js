// Which key means what. With more than ten classes letters search, so that the letters of commands need alt.

export const COMMANDS = [
  // name, key as shown, key as the browser names it, meaning
  ['previous', '←', 'ArrowLeft', 'go to the previous item'],
  ['next', '→', 'ArrowRight', 'go to the next item without an answer'],
  ['accept', 'a', 'a', 'accept the guess; after an edit, save what is on the screen'],
  ['reject', 'x', 'x', 'reject the guess'],
  ['skip', 'space', ' ', 'skip: I cannot answer'],
  ['ignore', 'i', 'i', 'ignore: nobody should label this item'],
  ['flag', 'f', 'f', 'flag for a second opinion'],
  ['undo', 'backspace', 'Backspace', 'undo the last edit of this item; without edits, the last answer'],
  ['save', 'enter', 'Enter', 'save the answer'],
  ['help', 'h', 'h', 'show or hide these keys'],
]
export const TAKEN = [...COMMANDS.map(c => c[2]), '/', 'e', '[', ']']      // keys that no class gets as its letter

const ALT = /Mac|iPhone|iPad/.test(navigator.platform) ? '⌥' : 'alt'
const SCROLLS = ['ArrowUp', 'ArrowDown', 'PageUp', 'PageDown', 'Home', 'End']
const ZOOMS = { '+': 1.5, '=': 1.5, '-': 1 / 1.5, '.': 0 }

export const shownKey = (key, searching) => searching && /^[a-z]$/.test(key) ? `${ALT} ${key}` : key
export const withControl = e => (e.ctrlKey || e.metaKey) && !e.altKey && !e.getModifierState?.('AltGraph')
export const withAlt = e => e.altKey && !e.ctrlKey && !e.metaKey && !e.getModifierState?.('AltGraph')
export const isUndo = e => withControl(e) && !e.shiftKey && e.key.toLowerCase() === 'z'
export const isSaveNotebook = e => withControl(e) && !e.shiftKey && e.key.toLowerCase() === 's'
export const isScroll = e => SCROLLS.includes(e.key)
export const zoomOf = e => ZOOMS[e.key]      // a factor; 0: fit

export function letterIn(e, searching) {
  // the letter of a command, or ''; on a Mac alt changes the letter that is typed
  if (searching !== Boolean(e.altKey)) return ''
  if (e.altKey && /^Key[A-Z]$/.test(e.code || '')) return e.code[3].toLowerCase()
  return e.key.length === 1 ? e.key.toLowerCase() : ''
}

export function commandIn(e, searching) {
  // the name of a command, or undefined
  if (isUndo(e)) return 'undo'
  if (e.key === '?') return 'help'
  const letter = letterIn(e, searching), whole = e.altKey ? '' : e.key
  return COMMANDS.find(([, , key]) => /^[a-z]$/.test(key) ? key === letter : key === whole)?.[0]
}

export function lettersOf(classes) {
  // a unique letter for each class: the first in its name that no command and no earlier class uses
  const taken = new Set(TAKEN)
  return classes.map(name => {
    const letter = [...name.toLowerCase()].find(c => /\p{L}/u.test(c) && !taken.has(c))
    if (letter) taken.add(letter)
    return letter || ''
  })
}

export function passOn(e, to) {
  // the same key, pressed outside the panel: the notebook hears it
  const again = new KeyboardEvent(e.type, { key: e.key, code: e.code, ctrlKey: e.ctrlKey, metaKey: e.metaKey, bubbles: true, cancelable: true })
  Object.defineProperty(again, 'keyCode', { value: e.keyCode })
  to.dispatchEvent(again)
}
