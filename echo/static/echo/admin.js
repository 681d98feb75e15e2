// The admin pages: submits each form only once, and keeps the table of objects or members up to date.
'use strict';

{
  const forms = document.querySelectorAll('form.echo-once');

  // A second click during the request would repeat the action.
  for (const form of forms) {
    form.addEventListener('submit', (event) => {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = 'yes';
    });
  }

  // A page restored from the browser's history still has its forms marked as sent.
  addEventListener('pageshow', (event) => {
    if (event.persisted) forms.forEach((form) => delete form.dataset.sent);
  });
}

{
  const live = document.getElementById('content-main');
  const stale = document.getElementById('echo-stale');
  const PARTS = ['echo-known', 'echo-rows'];
  const SHARE = 0.2; // of the time may be spent on fetches: a page with many members takes long
  let isFetching = false; // or the pause after a fetch has not ended
  let hasChanged = false; // whether a count has changed during the fetch

  // Returns the current parts of the page, or [] if there is no response, an error, or a login page.
  const fetchParts = async () => {
    try {
      const response = await fetch(location.href, { cache: 'no-store' });
      const page = new DOMParser().parseFromString(await response.text(), 'text/html');
      const parts = PARTS.map((id) => page.getElementById(id));
      return response.ok && parts.every(Boolean) ? parts : [];
    } catch {
      return [];
    }
  };

  const replace = (shown, fresh) => {
    if (fresh.isEqualNode(shown)) return;
    const focused = shown.contains(document.activeElement) ? document.activeElement.href : null;
    shown.replaceWith(document.adoptNode(fresh));
    const same = [...fresh.querySelectorAll('a')].find(({ href }) => href === focused);
    if (same) same.focus();
  };

  // Called at each change of a count. Runs one fetch at a time.
  const follow = async () => {
    hasChanged = isFetching;
    // A fetch would consume the message about the form that is being submitted.
    if (isFetching || document.querySelector('form[data-sent]')) return;
    isFetching = true;
    const began = performance.now();
    const parts = await fetchParts();
    const took = performance.now() - began;
    for (const fresh of parts) replace(document.getElementById(fresh.id), fresh);
    stale.hidden = parts.length > 0 && !('stale' in live.dataset); // may have been set during the fetch
    await new Promise((resume) => {
      setTimeout(resume, took * (1 / SHARE - 1));
    });
    isFetching = false;
    if (hasChanged) follow();
  };

  if (stale) {
    live.addEventListener('echo-count', follow); // also at each change of a list of members
    live.addEventListener('echo-stale', ({ detail }) => {
      stale.hidden = !detail;
    });
  }
}
