'use strict';
{
  const forms = document.querySelectorAll('form.echo-once');

  // A second click while the first is on its way would do it twice.
  for (const form of forms) {
    form.addEventListener('submit', event => {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = 'yes';
    });
  }

  // A page that comes back from the browser's history is as it was left.
  addEventListener('pageshow', event => {
    if (event.persisted) forms.forEach(form => delete form.dataset.sent);
  });
}
