// The inspector: the stock client, as anybody.
import { createClient } from '/supabase.js'

const $ = (id) => document.getElementById(id)
const { url, key } = $('inspector').dataset
let supabase = null
let channel = null

function show(kind, value) {
  const item = document.createElement('li')
  for (const [tag, text] of [['time', new Date().toLocaleTimeString()], ['strong', kind], ['pre', typeof value === 'string' ? value : JSON.stringify(value, null, 1)]]) {
    const el = document.createElement(tag)
    el.textContent = text
    item.append(el)
  }
  $('stream').prepend(item)
  while ($('stream').children.length > 200) $('stream').lastChild.remove()
}

function joined(yes) {
  for (const id of ['broadcast', 'track', 'leave']) $(id).disabled = !yes
}

async function leave() {
  joined(false)
  $('state').textContent = 'not joined'
  const old = supabase
  supabase = channel = null
  if (old) { await old.removeAllChannels(); old.realtime.disconnect() }
}

async function token(form) {
  if (form.get('as') === 'anon') return null // as a page without a session
  const r = await fetch('/token', { method: 'POST', body: new URLSearchParams({ as: form.get('as'), user: form.get('user') }) })
  if (!r.ok) throw new Error(await r.text())
  return (await r.json()).token
}

$('join').onsubmit = async (event) => {
  event.preventDefault()
  const form = new FormData($('join'))
  await leave()
  try {
    const tok = await token(form)
    supabase = createClient(url, key, tok ? { accessToken: async () => tok } : { auth: { persistSession: false } })
    channel = supabase.channel(form.get('topic'), { config: { private: form.get('private') === 'on', broadcast: { self: true, ack: true } } })
    channel.on('broadcast', { event: '*' }, (m) => show('broadcast', { event: m.event, payload: m.payload }))
    channel.on('presence', { event: 'sync' }, () => show('presence', channel.presenceState()))
    channel.on('system', {}, (m) => show('system', m))
    if (form.get('table')) {
      const [schema, ...table] = form.get('table').split('.')
      const filter = form.get('filter').trim()
      channel.on('postgres_changes', { event: '*', schema, table: table.join('.'), ...(filter && { filter }) }, (m) => show(m.eventType, { new: m.new, old: m.old, errors: m.errors }))
    }
    $('state').textContent = 'joining'
    const mine = channel
    channel.subscribe((state, err) => {
      if (mine !== channel) return
      $('state').textContent = state
      joined(state === 'SUBSCRIBED')
      $('leave').disabled = false
      show(state, err ? err.message : '')
    })
  } catch (err) {
    show('error', err.message)
  }
}

$('leave').onclick = leave

$('send').onsubmit = async (event) => {
  event.preventDefault()
  const form = new FormData($('send'))
  try {
    const payload = JSON.parse(form.get('payload') || '{}')
    const answer = await channel.send({ type: 'broadcast', event: form.get('event'), payload })
    if (answer !== 'ok') show('error', `the broadcast was not taken: ${answer}`)
  } catch (err) {
    show('error', err.message)
  }
}

$('track').onclick = async () => {
  const answer = await channel.track({ from: 'the console', at: new Date().toISOString() })
  if (answer !== 'ok') show('error', `presence was not taken: ${answer}`)
}
