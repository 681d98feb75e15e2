// Keeps the counts on a page fresh: of each element of the class echo-live, by the stream at its
// data-url. An <output> shows the number; each element gets the events echo-count and echo-stale.
'use strict';

{
  const FIRST = 1000; // milliseconds until the server is tried again, doubled at each failure
  const LAST = 60000;
  const SILENCE = 40000; // milliseconds; a server that is there sends a heartbeat each 15 s
  const DASH = '—';

  const setTitle = (element) => {
    const { stale, known, old, unknown } = element.dataset;
    const title = stale !== undefined ? old : known === 'no' ? unknown : '';
    if (title) element.title = title;
    else element.removeAttribute('title');
  };

  const setStale = (element, stale) => {
    if (element.hasAttribute('data-stale') === stale) return;
    element.toggleAttribute('data-stale', stale);
    element.classList.toggle('echo-stale', stale);
    setTitle(element);
    element.dispatchEvent(new CustomEvent('echo-stale', { detail: stale }));
  };

  // `told` is what the stream says, or null where the count cannot be known.
  const show = (element, told) => {
    element.dataset.known = told ? 'yes' : 'no';
    if (element.localName === 'output') element.textContent = told ? told.connections : DASH;
    setStale(element, false);
    setTitle(element);
    element.dispatchEvent(new CustomEvent('echo-count', { detail: told }));
  };

  const follow = (url, elements) => {
    let source = null;
    let timer = 0;
    let failures = 0;

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
      elements.forEach((element) => show(element, told));
    };

    const start = () => {
      source = new EventSource(url);
      source.addEventListener('message', ({ data }) => tell(JSON.parse(data)));
      source.addEventListener('unknown', () => tell(null));
      source.addEventListener('heartbeat', () => later(fail, SILENCE));
      source.addEventListener('again', restart); // the server ends each stream some time
      source.addEventListener('error', fail);
      later(fail, SILENCE);
    };

    // A page that nobody sees needs no stream; browsers have six connections for all of a site.
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
    streams.set(url, [...(streams.get(url) || []), element]);
  }
  streams.forEach((elements, url) => follow(url, elements));
}
