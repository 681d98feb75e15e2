// Keeps the counts on a page up to date: each element of the class echo-live follows the stream at
// its data-url. An <output> displays the count, with a mark if it is stale. Each element receives the
// events echo-count (if it is not an <output>, at most about once a second) and echo-stale.
'use strict';

{
  const FIRST = 1000; // milliseconds until the first reconnection, doubled at each failure
  const LAST = 60000;
  const SILENCE = 40000; // milliseconds; a working server sends a heartbeat each 15 s
  const PAUSE = [700, 900]; // milliseconds between two fetches of a page, chosen at random
  const DASH = '—';
  const numbers = new Map(); // <output> -> its text while it is not stale
  const untold = new Map(); // element in its pause -> detail of its next echo-count, or undefined

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

  const setStale = (element, stale) => {
    if (element.hasAttribute('data-stale') === stale) return;
    element.toggleAttribute('data-stale', stale);
    element.classList.toggle('echo-stale', stale);
    setTitle(element);
    setText(element);
    element.dispatchEvent(new CustomEvent('echo-stale', { detail: stale }));
  };

  const tellCount = (element, told) => {
    element.dispatchEvent(new CustomEvent('echo-count', { detail: told }));
  };

  // At each echo-count, a page fetches itself again. The first is dispatched at once, later ones after
  // a pause, with the last change. The first event of a new stream starts no pause, so that the first
  // change is dispatched at once, too.
  const tellPage = (element, told, isFirst) => {
    if (untold.has(element)) {
      untold.set(element, told);
      return;
    }
    tellCount(element, told);
    if (isFirst) return;
    untold.set(element, undefined);
    const [least, most] = PAUSE;
    setTimeout(() => {
      const last = untold.get(element);
      untold.delete(element);
      if (last !== undefined) tellPage(element, last, false);
    }, least + Math.random() * (most - least));
  };

  // `told` is the data of the event, or null if the count is unknown.
  const show = (element, told, isFirst) => {
    element.dataset.known = told ? 'yes' : 'no';
    numbers.set(element, told ? told.connections : DASH);
    setStale(element, false);
    setTitle(element);
    setText(element);
    if (isOutput(element)) tellCount(element, told);
    else tellPage(element, told, isFirst);
  };

  const follow = (url, elements) => {
    let source = null;
    let timer = 0;
    let failures = 0;
    let isNew = true; // whether the stream has sent no event yet

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

    const tell = (told) => {
      failures = 0;
      later(fail, SILENCE);
      elements.forEach((element) => show(element, told, isNew));
      isNew = false;
    };

    const start = () => {
      isNew = true;
      source = new EventSource(url);
      source.addEventListener('message', ({ data }) => tell(JSON.parse(data)));
      source.addEventListener('unknown', () => tell(null));
      source.addEventListener('heartbeat', () => later(fail, SILENCE));
      source.addEventListener('again', restart); // the server limits the duration of each stream
      source.addEventListener('error', fail);
      later(fail, SILENCE);
    };

    // A hidden page needs no stream, and browsers open only six connections to a site.
    document.addEventListener('visibilitychange', () => {
      if (document.hidden) stop();
      else restart();
    });
    if (!document.hidden) start();
  };

  const streams = new Map(); // URL -> elements
  for (const element of document.querySelectorAll('.echo-live:not([data-followed])')) {
    const { url } = element.dataset;
    element.dataset.followed = '';
    element.querySelectorAll('.echo-unscripted').forEach((note) => note.remove()); // the script runs
    numbers.set(element, element.textContent);
    streams.set(url, [...(streams.get(url) || []), element]);
  }
  streams.forEach((elements, url) => follow(url, elements));
}
