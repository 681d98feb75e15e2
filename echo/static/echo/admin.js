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

  const fetchPage = async () => {
    try {
      const response = await fetch(location.href, { cache: 'no-store' });
      return new DOMParser().parseFromString(await response.text(), 'text/html');
    } catch {
      return null; // nobody answers: the stream tells, too
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
    const page = await fetchPage();
    isFetching = false;
    for (const id of PARTS) {
      const fresh = page && page.getElementById(id);
      if (fresh) replace(document.getElementById(id), fresh);
    }
    if (hasChanged) follow();
  };

  if (stale) {
    live.addEventListener('echo-count', follow);
    live.addEventListener('echo-stale', ({ detail }) => {
      stale.hidden = !detail;
    });
  }
}
