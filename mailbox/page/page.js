'use strict'

// Asks for the list every two seconds while the page is seen, and shows it anew
// when it has changed.

const $ = (id) => document.getElementById(id)
const article = document.querySelector('article')
let shown = '' // what the list was made from
let current = ''

async function refresh() {
  if (document.hidden) return
  const query = $('query').value.trim()
  const path = query ? 'api/v1/search?limit=500&query=' + encodeURIComponent(query) : 'api/v1/messages?limit=500'
  try {
    const r = await fetch(path)
    if (!r.ok) throw new Error(r.status)
    const list = await r.json()
    const key = JSON.stringify(list)
    if (key === shown) return
    shown = key
    draw(list)
  } catch {
    $('count').textContent = '(not running)'
    shown = ''
  }
}

function draw(list) {
  $('count').textContent = list.unread ? `(${list.unread} new)` : ''
  $('empty').hidden = list.messages.length > 0
  $('list').replaceChildren(...list.messages.map((m) => {
    const button = document.createElement('button')
    button.type = 'button'
    if (m.ID === current) button.setAttribute('aria-current', 'true')
    const subject = document.createElement('strong')
    subject.textContent = m.Subject || '(no subject)'
    if (m.Read) subject.className = 'read'
    const to = document.createElement('span')
    to.textContent = `${new Date(m.Created).toLocaleTimeString()} · ${m.To.map((a) => a.Address).join(', ')}`
    button.append(subject, to)
    button.onclick = () => open(m.ID)
    const item = document.createElement('li')
    item.append(button)
    return item
  }))
}

async function open(id) {
  const r = await fetch('api/v1/message/' + encodeURIComponent(id))
  if (!r.ok) return refresh()
  const m = await r.json()
  current = id
  $('subject').textContent = m.Subject
  $('to').textContent = m.To.map((a) => a.Address).join(', ')
  $('from').textContent = m.From.Name ? `${m.From.Name} <${m.From.Address}>` : m.From.Address
  $('at').textContent = new Date(m.Date).toLocaleString()
  $('body').src = 'view/' + encodeURIComponent(id) + '.html'
  article.hidden = false
  document.body.classList.add('reading')
  shown = ''
  refresh()
}

$('back').onclick = () => document.body.classList.remove('reading')
$('clear').onclick = async () => {
  await fetch('api/v1/messages', { method: 'DELETE' })
  current = ''
  article.hidden = true
  document.body.classList.remove('reading')
  refresh()
}
$('query').oninput = refresh
document.addEventListener('visibilitychange', refresh)
setInterval(refresh, 2000)
refresh()
