// Keeps the counts and member lists on a page up to date: each element of the class echo-live follows
// the stream at its data-url. An <output> displays the count, with a mark if it is stale; an element of
// the class echo-members displays the members. Each element receives the events echo-count (if it is
// neither, at most about once a second) or echo-members, and echo-stale. If a list has no data-url at
// first, dispatch echo-follow at it after each change of that. Infos are untrusted: textContent only.
'use strict';

{
  const FIRST = 1000; // milliseconds until the first reconnection, doubled at each failure
  const LAST = 60000;
  const SILENCE = 40000; // milliseconds; a working server sends a heartbeat each 15 s
  const PAUSE = [700, 900]; // milliseconds between two fetches of a page, chosen at random
  const ANNOUNCE = 5000; // milliseconds until screen readers announce how many people are here
  const DASH = '—';
  const numbers = new Map(); // <output> -> its text while it is not stale
  const paused = new Map(); // element in its pause -> detail of its next echo-count, or undefined

  const announcing = new Set(); // lists whose number of people has changed
  const following = new WeakMap(); // list -> function that stops its stream

  const isList = (element) => element.classList.contains('echo-members');
  const isOutput = (element) => element.localName === 'output';

  const setTitle = (element) => {
    const { stale, known, old, unknown } = element.dataset;
    const title = stale !== undefined ? old : known === 'no' ? unknown : '';
    if (title) element.title = title;
    else element.removeAttribute('title');
  };

  // The mark is text, because an <output> is a live region: screen readers announce its changes.
  const setText = (element) => {
    if (!isOutput(element)) return;
    const { stale, staleMark = '?' } = element.dataset;
    const number = numbers.get(element);
    element.textContent = stale === undefined ? number : `${number} (${staleMark})`;
  };

  const setNote = (element) => {
    const { stale, known, old, unknown } = element.dataset;
    setPart(element, '.echo-note', stale !== undefined ? old : known === 'no' ? unknown : '');
  };

  const setStale = (element, stale) => {
    if (element.hasAttribute('data-stale') === stale) return;
    element.toggleAttribute('data-stale', stale);
    element.classList.toggle('echo-stale', stale);
    if (isList(element)) setNote(element);
    else setTitle(element);
    setText(element);
    element.dispatchEvent(new CustomEvent('echo-stale', { detail: stale }));
  };

  const dispatchCount = (element, data) => {
    element.dispatchEvent(new CustomEvent('echo-count', { detail: data }));
  };

  // At each echo-count, a page fetches itself again. The first is dispatched at once, later ones after
  // a pause, with the last change. The first event of a new stream starts no pause, so that the first
  // change is dispatched at once, too.
  const dispatchPaced = (element, data, isFirst) => {
    if (paused.has(element)) {
      paused.set(element, data);
      return;
    }
    dispatchCount(element, data);
    if (isFirst) return;
    paused.set(element, undefined);
    const [least, most] = PAUSE;
    setTimeout(() => {
      const last = paused.get(element);
      paused.delete(element);
      if (last !== undefined) dispatchPaced(element, last, false);
    }, least + Math.random() * (most - least));
  };

  // `data` is that of the event, or null if the count is unknown.
  const show = (element, data, isFirst) => {
    element.dataset.known = data ? 'yes' : 'no';
    numbers.set(element, data ? data.connections : DASH);
    setStale(element, false);
    setTitle(element);
    setText(element);
    if (isOutput(element)) dispatchCount(element, data);
    else dispatchPaced(element, data, isFirst);
  };

  // A site's own template may omit a part. Live regions announce each assignment: make none in vain.
  const setPart = (element, selector, text) => {
    const part = element.querySelector(selector);
    if (part && part.textContent !== text) part.textContent = text;
  };

  const setHidden = (element, selector, hidden) => {
    const part = element.querySelector(selector);
    if (part) part.hidden = hidden;
  };

  // As Python's str.isprintable and unicode_escape: names could look like another one otherwise.
  const visible = (text) =>
    text.replace(/[\p{C}\p{Z}]/gu, (char) => {
      if (' \n'.includes(char)) return char;
      if (char === '\t') return '\\t';
      if (char === '\r') return '\\r';
      const code = char.codePointAt(0);
      const digits = code < 0x100 ? 2 : code < 0x10000 ? 4 : 8;
      return `\\${{ 2: 'x', 4: 'u', 8: 'U' }[digits]}${code.toString(16).padStart(digits, '0')}`;
    });

  const nameOf = ({ key, info: { name } }) => visible(typeof name === 'string' && name ? name : key);

  const itemOf = (element, items, member) => {
    const { content } = element.querySelector('template');
    const item = items.get(member.key) || content.firstElementChild.cloneNode(true);
    item.dataset.key = member.key;
    const text = item.querySelector('bdi') || item;
    if (text.textContent !== nameOf(member)) text.textContent = nameOf(member);
    return item;
  };

  // Joined members come last: the list begins with the longest presence.
  const setItems = (element, list, kind, members) => {
    const items = new Map([...list.children].map((item) => [item.dataset.key, item]));
    if (kind === 'left') {
      members.forEach(({ key }) => items.has(key) && items.get(key).remove());
      return;
    }
    const shown = members.map((member) => itemOf(element, items, member));
    if (kind === 'message') list.replaceChildren(...shown);
    if (kind === 'joined') list.append(...shown);
  };

  const announce = (element, people) => {
    element.dataset.people = people;
    if (announcing.has(element)) return;
    announcing.add(element);
    setTimeout(() => {
      announcing.delete(element);
      setPart(element, '.echo-total', element.dataset.people);
    }, ANNOUNCE);
  };

  // `data` is that of the event, or null if the members are unknown.
  const showMembers = (element, kind, data) => {
    const { language, total, more } = element.dataset;
    const list = element.querySelector('[role=list]');
    const others = (data && data.more) || 0;
    if (data) setItems(element, list, kind, data.members || []);
    else list.replaceChildren();
    const people = data ? data.people : 0;
    const fill = (text, number) => text.replace('{count}', number.toLocaleString(language));
    element.dataset.known = data ? 'yes' : 'no';
    list.hidden = !list.children.length;
    setPart(element, '.echo-more', others ? fill(more, others) : '');
    setHidden(element, '.echo-more', !others);
    setHidden(element, '.echo-empty', !data || people > 0);
    setStale(element, false);
    setNote(element);
    announce(element, data ? fill(total, people) : '');
    element.dispatchEvent(new CustomEvent('echo-members', { detail: data && { kind, ...data } }));
  };

  // Returns a function that ends the stream.
  const follow = (url, elements) => {
    const ended = new AbortController();
    let source = null;
    let timer = 0;
    let failures = 0;
    let isNew = true; // whether the stream has sent no event yet
    let listed = 0; // members that the stream has sent and that are present

    const later = (action, delay) => {
      clearTimeout(timer);
      timer = setTimeout(action, delay);
    };

    const stop = () => {
      clearTimeout(timer);
      if (source) source.close();
      source = null;
    };

    const restart = () => {
      stop();
      start();
    };

    const fail = () => {
      stop();
      elements.forEach((element) => setStale(element, true));
      const delay = Math.min(LAST, FIRST * 2 ** failures++);
      later(start, delay * (0.5 + Math.random() / 2));
    };

    // Adds the number of all members to the data of an event of a member list.
    const withPeople = (data, kind) => {
      if (!data || (kind === 'message' && !data.members)) return data;
      const { members = [], more = 0 } = data;
      if (kind === 'message') listed = 0;
      if (kind === 'left') listed -= members.length;
      if (kind === 'message' || kind === 'joined') listed += members.length;
      return { ...data, people: listed + more };
    };

    const receive = (event, kind) => {
      const data = withPeople(event, kind);
      failures = 0;
      later(fail, SILENCE);
      for (const element of elements) {
        if (isList(element)) showMembers(element, kind, data);
        else show(element, data, isNew);
      }
      isNew = false;
    };

    const start = () => {
      isNew = true;
      source = new EventSource(url);
      for (const kind of ['message', 'joined', 'left', 'updated', 'connections']) {
        source.addEventListener(kind, ({ data }) => receive(JSON.parse(data), kind));
      }
      source.addEventListener('unknown', () => receive(null));
      source.addEventListener('heartbeat', () => later(fail, SILENCE));
      source.addEventListener('again', restart); // the server limits the duration of each stream
      source.addEventListener('error', fail);
      later(fail, SILENCE);
    };

    // A hidden page needs no stream, and browsers open only six connections to a site.
    const onVisibility = () => {
      if (document.hidden) stop();
      else restart();
    };
    document.addEventListener('visibilitychange', onVisibility, { signal: ended.signal });
    if (!document.hidden) start();
    return () => {
      ended.abort();
      stop();
    };
  };

  // Empties the list, and follows the stream of another object.
  const refollow = (element) => {
    if (following.has(element)) following.get(element)();
    following.delete(element);
    element.querySelector('[role=list]').replaceChildren();
    delete element.dataset.known;
    setStale(element, false);
    setNote(element);
    ['.echo-more', '.echo-empty', '[role=list]'].forEach((part) => setHidden(element, part, true));
    const { url } = element.dataset;
    if (url) following.set(element, follow(url, [element]));
  };

  // Only one copy of the script may follow.
  document.addEventListener('echo-follow', (event) => {
    event.stopImmediatePropagation();
    refollow(event.target);
  });

  const streams = new Map(); // URL -> elements
  for (const element of document.querySelectorAll('.echo-live:not([data-followed])')) {
    const { url } = element.dataset;
    element.dataset.followed = '';
    element.querySelectorAll('.echo-unscripted').forEach((note) => note.remove()); // the script runs
    if (isOutput(element)) numbers.set(element, element.textContent);
    if (url) streams.set(url, [...(streams.get(url) || []), element]);
  }
  streams.forEach((elements, url) => follow(url, elements));
}
