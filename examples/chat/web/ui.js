// Small helpers for the DOM; nothing here knows about rooms or Supabase.

/** The element with this id; a missing one is a bug in index.html. */
export function $(id) {
  const el = document.getElementById(id);
  if (!el) throw new Error(`no element #${id}`);
  return el;
}

/** A new element with properties and children; text is never parsed as HTML. */
export function el(tag, props = {}, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
}

/** Fills an avatar: initials on a colour that follows from the id. */
export function avatar(node, id, name) {
  const words = (name || '?').trim().split(/\s+/u);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]];
  node.textContent = letters.map((w) => [...w][0] ?? '').join('');
  let hue = 0;
  for (const c of id) hue = (hue * 31 + c.codePointAt(0)) % 360;
  node.style.setProperty('--hue', hue);
  return node;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const date = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });

export const timeOf = (iso) => clock.format(new Date(iso));

/** "Today", "Yesterday" or the date. */
export function dayOf(iso) {
  const midnight = (d) => new Date(d.getFullYear(), d.getMonth(), d.getDate());
  const days = Math.round((midnight(new Date()) - midnight(new Date(iso))) / 86_400_000);
  if (days === 0) return 'Today';
  if (days === 1) return 'Yesterday';
  return date.format(new Date(iso));
}

/** Shows a problem that the reader should know of, until it is closed. */
export function notice(text) {
  $('notice-text').textContent = text;
  $('notice').hidden = false;
}

export function wireNotice() {
  $('notice-close').addEventListener('click', () => { $('notice').hidden = true; });
  // A blocked connection is otherwise seen in the console alone.
  document.addEventListener('securitypolicyviolation', (e) => {
    notice(`This page's Content-Security-Policy blocks ${e.blockedURI} (${e.effectiveDirective}).`);
  });
}

/** Light, dark, or what the system says; remembered in this browser. */
export function wireTheme() {
  const root = document.documentElement;
  try {
    const stored = localStorage.getItem('theme');
    if (stored === 'light' || stored === 'dark') root.dataset.theme = stored;
  } catch { /* storage is switched off: the system's choice holds */ }
  $('theme').addEventListener('click', () => {
    const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
    root.dataset.theme = dark ? 'light' : 'dark';
    try { localStorage.setItem('theme', root.dataset.theme); } catch { /* as above */ }
  });
}

/** Lets a text area grow with its text where CSS field-sizing is unknown. */
export function grow(area) {
  if (CSS.supports('field-sizing', 'content')) return;
  area.style.height = 'auto';
  area.style.height = `${area.scrollHeight + 2}px`;
}

/** Enter submits, Shift+Enter breaks the line, and an input method is left alone. */
export function enterSubmits(area, submit, signal) {
  area.addEventListener('keydown', (e) => {
    if (e.key !== 'Enter' || e.shiftKey || e.isComposing) return;
    e.preventDefault();
    submit();
  }, { signal });
}
