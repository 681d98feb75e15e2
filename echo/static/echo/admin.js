// The admin pages: submits each form only once, and keeps the table of objects up to date.
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
  let isFetching = false;
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
    if (isFetching) return;
    isFetching = true;
    const parts = await fetchParts();
    isFetching = false;
    for (const fresh of parts) replace(document.getElementById(fresh.id), fresh);
    stale.hidden = parts.length > 0 && !('stale' in live.dataset); // may have been set during the fetch
    if (hasChanged) follow();
  };

  if (stale) {
    live.addEventListener('echo-count', follow);
    live.addEventListener('echo-stale', ({ detail }) => {
      stale.hidden = !detail;
    });
  }
}
