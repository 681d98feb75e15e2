// The operators' pages: each form is sent once, and the table of the objects stays fresh.
'use strict';

{
  const forms = document.querySelectorAll('form.echo-once');

  // A second click while the first is on its way would do it twice.
  for (const form of forms) {
    form.addEventListener('submit', (event) => {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = 'yes';
    });
  }

  // A page that comes back from the browser's history is as it was left.
  addEventListener('pageshow', (event) => {
    if (event.persisted) forms.forEach((form) => delete form.dataset.sent);
  });
}

{
  const live = document.getElementById('content-main');
  const stale = document.getElementById('echo-stale');
  const PARTS = ['echo-known', 'echo-rows'];
  let isFetching = false;
  let hasChanged = false; // since then

  // Returns the parts of the page as it is now; nothing where there is none: nobody answers, or
  // with an error, or asks to log in.
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

  // Called at each change of a count: fetches one page after the other.
  const follow = async () => {
    hasChanged = isFetching;
    if (isFetching) return;
    isFetching = true;
    const parts = await fetchParts();
    isFetching = false;
    for (const fresh of parts) replace(document.getElementById(fresh.id), fresh);
    stale.hidden = parts.length > 0 && !('stale' in live.dataset); // it may have become so since
    if (hasChanged) follow();
  };

  if (stale) {
    live.addEventListener('echo-count', follow);
    live.addEventListener('echo-stale', ({ detail }) => {
      stale.hidden = !detail;
    });
  }
}
