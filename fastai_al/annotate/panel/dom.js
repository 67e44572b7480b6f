// Nodes, colours and words. Names, labels and texts are not trusted: they are set as text and never as HTML.

export function make(tag, name, text, parent) {
  const node = document.createElement(tag)
  if (name) node.className = 'fal-' + name
  if (text !== undefined) node.textContent = text
  if (parent) parent.append(node)
  return node
}

export function draw(tag, name, attributes, parent) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag)
  if (name) node.setAttribute('class', 'fal-' + name)
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value)
  if (parent) parent.append(node)
  return node
}

const COLOURS = ['#e6194b', '#3cb44b', '#4363d8', '#f58231', '#911eb4', '#009fb0', '#f032e6', '#808000', '#9a6324', '#000075']

export function colourOf(place) {
  // ten distinct colours, then hues a golden angle apart; each round of the circle is darker or lighter than the one before
  if (place < COLOURS.length) return COLOURS[place]
  const hue = place * 137.508 % 360, light = [.42, .3, .58][place % 3], a = .85 * Math.min(light, 1 - light)
  const channel = n => {
    const k = (n + hue / 30) % 12
    return Math.round(255 * (light - a * Math.max(-1, Math.min(k - 3, 9 - k, 1)))).toString(16).padStart(2, '0')
  }
  return `#${channel(0)}${channel(8)}${channel(4)}`
}

export function numberIn(text) {
  // the number in a text, or what is wrong with it; a comma may be a decimal point, but before three digits it may separate thousands
  const whole = text.replace(/,(?=\d{3}(?!\d))/g, ''), point = text.replace(',', '.')
  if (whole !== text) return { error: `${text} may mean ${whole} or ${point}. Type it without the comma.` }
  const value = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(point) ? Number(point) : NaN
  return Number.isFinite(value) ? { value } : { error: text === '' ? 'Type a number.' : `${text} is not a number. Type one such as 1.5.` }
}

export function folded(text) {
  // lower case without accents, to compare what is typed with names
  return text.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase()
}
