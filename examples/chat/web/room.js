// One open room: its messages (Postgres Changes), who is here (Presence) and
// who is typing (Broadcast), all on one channel.

import { $, avatar, dayOf, el, enterSubmits, grow, notice, timeOf } from './ui.js';

const PAGE = 50; // messages loaded at once
const TYPING_EVERY = 2_000; // ms between two "typing" messages of ours
const TYPING_FOR = 4_000; // ms that one of theirs is shown
const NEAR_END = 120; // px from the end within which new messages scroll the list

export class Room {
  constructor(supabase, { id, name, topic }, me) {
    this.supabase = supabase;
    this.id = id;
    this.me = me;
    this.names = new Map([[me.id, me.name]]); // user id → name
    this.messages = new Map(); // message id → row, with state pending or failed when it is only here
    this.deleted = new Set(); // ids deleted while this room was open: a late answer must not bring them back
    this.items = new Map(); // message id → list item
    this.typists = new Map(); // user id → timer
    this.live = false;
    this.lastTyping = 0;
    this.more = false;
    this.listeners = new AbortController();

    $('room-title').textContent = name;
    $('room-topic').textContent = topic;
    $('messages').replaceChildren();
    $('people').replaceChildren();
    $('people-count').textContent = '';
    $('typing').textContent = '';
    $('empty').hidden = $('earlier').hidden = true;
    this.listen();
    this.showConnection('connecting', 'Connecting…');
    this.subscribe();
    this.load();
  }

  close() {
    this.closed = true;
    this.listeners.abort();
    for (const timer of this.typists.values()) clearTimeout(timer);
    this.supabase.removeChannel(this.channel);
  }

  listen() {
    const { signal } = this.listeners;
    const body = $('body');
    const send = () => this.send();
    $('composer').addEventListener('submit', (e) => { e.preventDefault(); send(); }, { signal });
    enterSubmits(body, send, signal);
    body.addEventListener('input', () => { grow(body); this.sayTyping(); }, { signal });
    $('earlier').addEventListener('click', () => this.load(true), { signal });
    if (matchMedia('(hover: hover)').matches) body.focus();
  }

  // ── the channel ───────────────────────────────────────────────────────────

  subscribe() {
    this.channel = this.supabase
      .channel(`room:${this.id}`, { config: { broadcast: { self: false }, presence: { key: this.me.id } } })
      .on('postgres_changes', { event: '*', schema: 'public', table: 'messages', filter: `room_id=eq.${this.id}` },
        (change) => this.changed(change))
      .on('broadcast', { event: 'typing' }, ({ payload }) => this.someoneTypes(payload))
      .on('presence', { event: 'sync' }, () => this.showPeople())
      .on('system', {}, (message) => this.system(message))
      .subscribe((status, err) => this.status(status, err));
  }

  /** What the subscribe callback says, as it says it: a refusal must be readable. */
  status(status, err) {
    if (this.closed) return;
    this.live = status === 'SUBSCRIBED';
    if (this.live) {
      this.showConnection('live', 'Live');
      this.channel.track({ name: this.me.name });
      this.load(); // whatever happened while nobody was listening
      return;
    }
    const text = err?.message ?? { TIMED_OUT: 'the server did not answer in time', CLOSED: 'the channel was closed' }[status] ?? 'no reason given';
    this.showConnection('error', status === 'CLOSED' ? 'Closed' : 'Reconnecting…', `${status}: ${text}`);
    $('people').replaceChildren();
    $('people-count').textContent = '';
  }

  /** System messages: Sluice says here why a subscription will stay silent. */
  system(message) {
    if (message?.status !== 'ok' && message?.message) this.showConnection(this.live ? 'live' : 'error', null, message.message);
  }

  showConnection(state, text, why = '') {
    $('connection').dataset.state = state;
    if (text) $('connection-text').textContent = text;
    $('why').textContent = why;
    $('why').hidden = !why;
  }

  changed({ eventType, new: row, old, errors }) {
    if (this.closed) return;
    if (errors?.length) {
      notice(`A change arrived without its data: ${errors.join(', ')}`);
      return;
    }
    if (eventType === 'DELETE') {
      this.remove(old.id);
    } else {
      this.put(row);
      this.stopTyping(row.user_id);
      this.learnNames();
    }
    this.render();
  }

  // ── loading ───────────────────────────────────────────────────────────────

  /** Reads the newest messages, or those before the oldest that is shown. */
  async load(earlier = false) {
    const known = new Set([...this.messages.values()].filter((m) => !m.state).map((m) => m.id));
    let query = this.supabase.from('messages').select('id,room_id,user_id,body,created_at,edited_at')
      .eq('room_id', this.id).order('created_at', { ascending: false }).order('id', { ascending: false }).limit(PAGE);
    const oldest = this.sorted().find((m) => !m.state);
    if (earlier && oldest) query = query.lte('created_at', oldest.created_at);
    const { data, error } = await query;
    if (this.closed) return;
    if (error) {
      notice(`Messages could not be loaded: ${error.message}`);
      return;
    }
    if (!earlier) {
      // What was known before, is as new as this page and is not in it, is gone.
      const from = data.length === PAGE ? Date.parse(data.at(-1).created_at) : 0;
      const present = new Set(data.map((m) => m.id));
      for (const id of known) {
        const m = this.messages.get(id);
        if (m && !m.state && !present.has(id) && Date.parse(m.created_at) >= from) this.remove(id);
      }
    }
    if (earlier || this.messages.size === 0) this.more = data.length === PAGE;
    data.forEach((row) => this.put(row));
    await this.learnNames();
    if (!this.closed) this.render(earlier);
  }

  /** Keeps the newer of two versions of a row; a stored row replaces its draft. */
  put(row) {
    const have = this.messages.get(row.id);
    if (this.deleted.has(row.id)) return;
    if (have && !have.state && (have.edited_at ?? '') > (row.edited_at ?? '')) return;
    this.messages.set(row.id, row);
  }

  remove(id) {
    this.deleted.add(id);
    this.messages.delete(id);
  }

  async learnNames() {
    const unknown = [...new Set([...this.messages.values()].map((m) => m.user_id))].filter((id) => !this.names.has(id));
    if (unknown.length === 0) return;
    unknown.forEach((id) => this.names.set(id, '…')); // asked for once
    const { data, error } = await this.supabase.from('profiles').select('id,name').in('id', unknown);
    for (const id of unknown) {
      if (error) this.names.delete(id);
      else this.names.set(id, data.find((p) => p.id === id)?.name ?? 'Someone');
    }
    if (!this.closed) this.render();
  }

  // ── writing ───────────────────────────────────────────────────────────────

  send() {
    const body = $('body').value.trim();
    if (!body) return;
    $('body').value = '';
    grow($('body'));
    this.lastTyping = 0;
    // created_at stands in until the database's own arrives; it sorts last.
    this.store({ id: crypto.randomUUID(), room_id: this.id, user_id: this.me.id, body, created_at: new Date().toISOString(), edited_at: null });
  }

  /** Shows the message at once, then inserts it. */
  async store(message) {
    this.messages.set(message.id, { ...message, state: 'pending' });
    this.render(false, true);
    const { id, room_id, body } = message;
    const { error } = await this.supabase.from('messages').insert({ id, room_id, body });
    const now = this.messages.get(id);
    if (!now?.state) return; // its change has come already
    // A repeated insert that finds its own row means that the first try arrived.
    if (error && error.code !== '23505') {
      this.messages.set(id, { ...message, state: 'failed', problem: error.message });
    } else {
      this.messages.set(id, message);
    }
    if (!this.closed) this.render();
  }

  async edit(message, body) {
    if (!body || body === message.body) return;
    const { error } = await this.supabase.from('messages').update({ body }).eq('id', message.id);
    if (error) {
      notice(`The message could not be changed: ${error.message}`);
      return;
    }
    const have = this.messages.get(message.id);
    // The change may have come already, with the time that the database gave it.
    if (have?.body === message.body) this.messages.set(message.id, { ...have, body });
    this.render();
  }

  async delete(message) {
    if (message.state === 'failed') {
      this.messages.delete(message.id);
      this.render();
      return;
    }
    const { error } = await this.supabase.from('messages').delete().eq('id', message.id);
    if (error) {
      notice(`The message could not be deleted: ${error.message}`);
      return;
    }
    this.remove(message.id);
    this.render();
  }

  // ── typing and presence ───────────────────────────────────────────────────

  sayTyping() {
    const now = Date.now();
    if (!this.live || !$('body').value.trim() || now - this.lastTyping < TYPING_EVERY) return;
    this.lastTyping = now;
    this.channel.send({ type: 'broadcast', event: 'typing', payload: { id: this.me.id, name: this.me.name } });
  }

  someoneTypes(payload) {
    if (this.closed || typeof payload?.id !== 'string' || payload.id === this.me.id) return;
    if (!this.names.has(payload.id)) this.names.set(payload.id, String(payload.name ?? 'Someone').slice(0, 40));
    clearTimeout(this.typists.get(payload.id));
    this.typists.set(payload.id, setTimeout(() => this.stopTyping(payload.id), TYPING_FOR));
    this.showTyping();
  }

  stopTyping(id) {
    clearTimeout(this.typists.get(id));
    if (this.typists.delete(id)) this.showTyping();
  }

  showTyping() {
    const names = [...this.typists.keys()].map((id) => this.names.get(id) ?? 'Someone');
    $('typing').textContent = names.length === 0 ? ''
      : names.length === 1 ? `${names[0]} is typing…`
        : names.length === 2 ? `${names[0]} and ${names[1]} are typing…`
          : 'Several people are typing…';
  }

  showPeople() {
    const people = Object.entries(this.channel.presenceState())
      .map(([id, metas]) => ({ id, name: String(metas[0]?.name ?? this.names.get(id) ?? 'Someone').slice(0, 40) }))
      .sort((a, b) => a.name.localeCompare(b.name));
    $('people').replaceChildren(...people.map((p) => el('li', {},
      avatar(el('span', { className: 'avatar', ariaHidden: 'true' }), p.id, p.name),
      el('span', { textContent: p.id === this.me.id ? `${p.name} (you)` : p.name }))));
    $('people-count').textContent = people.length || '';
    if (this.live) $('connection-text').textContent = people.length > 1 ? `Live · ${people.length} here` : 'Live';
  }

  // ── drawing ───────────────────────────────────────────────────────────────

  sorted() {
    return [...this.messages.values()].sort((a, b) =>
      (a.state ? 1 : 0) - (b.state ? 1 : 0) || Date.parse(a.created_at) - Date.parse(b.created_at) || (a.id < b.id ? -1 : 1));
  }

  /** Brings the list in line with this.messages, touching only what differs. */
  render(keepPlace = false, toEnd = false) {
    const scroll = $('scroll');
    const fromEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight;
    const first = this.items.size === 0;
    const list = this.sorted();
    const nodes = [];
    let before = null;
    for (const m of list) {
      const day = dayOf(m.created_at);
      if (!before || dayOf(before.created_at) !== day) {
        nodes.push(el('li', { className: 'day', textContent: day }));
        before = null;
      }
      const leads = !before || before.user_id !== m.user_id || Date.parse(m.created_at) - Date.parse(before.created_at) > 300_000;
      nodes.push(this.item(m, leads, !first));
      before = m;
    }
    for (const [id] of this.items) if (!this.messages.has(id)) this.items.delete(id);
    place($('messages'), nodes);
    $('empty').hidden = list.length > 0;
    $('earlier').hidden = !this.more;
    if (first || toEnd || (!keepPlace && fromEnd < NEAR_END)) scroll.scrollTop = scroll.scrollHeight;
    else if (keepPlace) scroll.scrollTop = scroll.scrollHeight - scroll.clientHeight - fromEnd;
  }

  item(m, leads, isNew) {
    const name = this.names.get(m.user_id) ?? '…';
    const mine = m.user_id === this.me.id;
    const version = JSON.stringify([m.body, m.created_at, m.edited_at, m.state, m.problem, name]);
    let item = this.items.get(m.id);
    if (!item) {
      item = el('li', { id: `m-${m.id}` });
      if (isNew) item.classList.add('new');
      this.items.set(m.id, item);
    }
    item.classList.add('message');
    item.classList.toggle('mine', mine);
    item.classList.toggle('first', leads);
    item.classList.toggle('pending', m.state === 'pending');
    item.classList.toggle('failed', m.state === 'failed');
    if (item.version === version || item.editing) return item;
    item.version = version;
    const time = el('time', { dateTime: m.created_at, textContent: timeOf(m.created_at) });
    const foot = el('div', { className: 'foot' }, time);
    if (m.edited_at) foot.append('edited');
    if (m.state === 'pending') foot.append('sending…');
    if (m.state === 'failed') foot.append(`not sent: ${m.problem}`);
    if (mine && m.state !== 'pending') foot.prepend(this.tools(m, item)); // times stay in one line at the edge
    item.replaceChildren(
      avatar(el('span', { className: 'avatar', ariaHidden: 'true' }), m.user_id, name),
      el('div', { className: 'column' },
        el('span', { className: mine ? 'unseen' : 'author', textContent: name }),
        el('div', { className: 'bubble' }, el('div', { className: 'text', textContent: m.body })),
        foot));
    return item;
  }

  tools(m, item) {
    const tools = el('span', { className: 'tools' });
    if (m.state === 'failed') {
      const retry = el('button', { type: 'button', textContent: 'Try again' });
      retry.addEventListener('click', () => this.store({ ...m, state: undefined, problem: undefined }));
      tools.append(retry);
    } else {
      const edit = el('button', { type: 'button', textContent: 'Edit', ariaLabel: `Edit: ${m.body.slice(0, 60)}` });
      edit.addEventListener('click', () => this.editor(m, item));
      tools.append(edit);
    }
    const remove = el('button', { type: 'button', textContent: 'Delete', ariaLabel: `Delete: ${m.body.slice(0, 60)}` });
    remove.addEventListener('click', () => {
      if (remove.classList.contains('sure') || m.state === 'failed') {
        this.delete(m);
        return;
      }
      remove.classList.add('sure'); // the second press deletes
      remove.textContent = remove.ariaLabel = 'Really delete?';
      remove.addEventListener('blur', () => {
        remove.classList.remove('sure');
        remove.textContent = 'Delete';
      }, { once: true });
    });
    tools.append(remove);
    return tools;
  }

  /** Puts a form in the message's place until it is saved or given up. */
  editor(m, item) {
    item.editing = true;
    const area = el('textarea', { value: m.body, maxLength: 4000, ariaLabel: 'Edit message' });
    const cancel = el('button', { type: 'button', textContent: 'Cancel' });
    const form = el('form', { className: 'edit', method: 'post' }, area, el('div', {}, cancel, el('button', { textContent: 'Save' })));
    const end = () => {
      item.editing = false;
      item.version = '';
      this.render();
      $('body').focus();
    };
    form.addEventListener('submit', async (e) => {
      e.preventDefault();
      await this.edit(m, area.value.trim());
      end();
    });
    cancel.addEventListener('click', end);
    area.addEventListener('keydown', (e) => { if (e.key === 'Escape') end(); });
    area.addEventListener('input', () => grow(area));
    enterSubmits(area, () => form.requestSubmit());
    item.querySelector('.bubble').replaceChildren(form);
    grow(area);
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }
}

/**
 * Makes the list's children equal to nodes. What stays is not moved, so that a
 * screen reader hears new messages alone.
 */
function place(list, nodes) {
  const keep = new Set(nodes);
  for (const child of [...list.children]) if (child.className !== 'day' && !keep.has(child)) child.remove();
  nodes.forEach((node, i) => {
    const there = list.children[i];
    if (there === node) return;
    if (there?.className === 'day' && node.className === 'day' && there.textContent === node.textContent) return;
    list.insertBefore(node, there ?? null);
  });
  while (list.children.length > nodes.length) list.lastElementChild.remove();
}
