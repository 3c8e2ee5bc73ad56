'use strict'

// Copies, shows secrets that are asked for, and every two seconds loads the page
// again and takes over what is alive in it and has changed.

const status = document.getElementById('status')

async function secret(name) {
  const r = await fetch('/secret', { method: 'POST', body: new URLSearchParams({ name }) })
  if (!r.ok) throw new Error(await r.text())
  return (await r.json()).value
}

async function copy(button, text) {
  await navigator.clipboard.writeText(text)
  const label = button.textContent
  button.textContent = 'Copied'
  setTimeout(() => { button.textContent = label }, 1200)
}

document.addEventListener('click', async (event) => {
  const b = event.target.closest('button')
  if (!b) return
  const d = b.dataset
  try {
    if (d.copy !== undefined) await copy(b, d.copy)
    if (d.copyFrom) await copy(b, document.getElementById(d.copyFrom).textContent)
    if (d.copySecret) await copy(b, await secret(d.copySecret))
    if (d.reveal) {
      const cell = document.querySelector(`[data-secret="${CSS.escape(d.reveal)}"]`)
      const shown = b.textContent === 'Hide'
      cell.textContent = shown ? '••••••••••••' : await secret(d.reveal)
      b.textContent = shown ? 'Show' : 'Hide'
    }
  } catch (err) {
    status.textContent = `That did not work: ${err.message}`
  }
})

async function refresh() {
  const live = [...document.querySelectorAll('[data-live]')]
  const down = document.querySelector('main > .warn.box')
  if (document.hidden || (live.length === 0 && !down)) return
  try {
    const r = await fetch(location.pathname + location.search)
    if (!r.ok) throw new Error(r.status)
    const next = new DOMParser().parseFromString(await r.text(), 'text/html')
    if (down && !next.querySelector('main > .warn.box')) return location.reload()
    for (const old of live) {
      const fresh = next.querySelector(`[data-live="${old.dataset.live}"]`)
      // What somebody is reading or about to press stays.
      if (!fresh || old.contains(document.activeElement) || old.querySelector('details[open]')) continue
      if (fresh.innerHTML !== old.innerHTML) old.innerHTML = fresh.innerHTML
    }
    if (status.dataset.down) { status.textContent = ''; delete status.dataset.down }
  } catch {
    status.dataset.down = 'yes'
    status.textContent = 'The stack does not answer.'
  }
}

setInterval(refresh, 2000)
document.addEventListener('visibilitychange', refresh)
