// The console and the table of the usage page. Names and texts are untrusted: use textContent only.
'use strict';

{
  const LINES = 500; // of the log; older ones are removed
  const SECOND = 1000; // milliseconds

  const panel = document.getElementById('echo-console');
  const words = panel.dataset;
  const log = panel.querySelector('[role=log]');
  const live = document.getElementById('echo-live');
  const who = document.getElementById('echo-who'); // missing if the user may not see members
  const [connectForm, sendForm, closeForm] = panel.querySelectorAll('form');
  let socket = null;
  let latest = 0; // number of the last fetch of the table
  let isFetching = false;
  let hasChanged = false; // whether a count has changed during the fetch

  const element = (tag, text) => {
    const made = document.createElement(tag);
    made.textContent = text;
    return made;
  };

  const say = (kind, text) => {
    const line = document.createElement('p');
    line.dataset.kind = kind;
    line.append(element('b', words[kind]), ' ', element('bdi', text));
    log.append(line);
    if (log.children.length > LINES) log.firstElementChild.remove();
    log.scrollTop = log.scrollHeight;
  };

  const enable = (form, yes) => {
    form.querySelector('fieldset').disabled = !yes;
  };

  const isOpen = () => socket.readyState === WebSocket.OPEN;

  const showState = () => {
    enable(connectForm, socket.readyState === WebSocket.CLOSED);
    enable(sendForm, isOpen());
    enable(closeForm, isOpen());
  };

  const fetchPage = async () => {
    try {
      const options = { headers: { Accept: 'text/html' }, cache: 'no-store' };
      const response = await fetch(words.root, options);
      return { status: response.status, text: await response.text() };
    } catch {
      return null; // no response
    }
  };

  const replaceKeepingFocus = (shown, fresh) => {
    const focused = shown.contains(document.activeElement) ? document.activeElement.href : null;
    shown.replaceWith(fresh);
    const same = [...fresh.querySelectorAll('a')].find(({ href }) => href === focused);
    if (same) same.focus();
  };

  // Returns whether the response has a table.
  const replaceTable = ({ status, text }) => {
    const shown = document.getElementById('echo-objects');
    if (!shown) return true; // a site's own template may omit it
    const page = new DOMParser().parseFromString(text, 'text/html');
    const fresh = page.getElementById('echo-objects');
    if (fresh && !fresh.isEqualNode(shown)) replaceKeepingFocus(shown, document.adoptNode(fresh));
    return fresh !== null;
  };

  // Updates the table from the server, and returns whether there was a response.
  const refresh = async ({ quietly = false } = {}) => {
    const ticket = ++latest;
    isFetching = true;
    const answer = await fetchPage();
    if (ticket === latest) { // else a newer fetch is running
      isFetching = false;
      const isFresh = answer !== null && replaceTable(answer);
      if (quietly) showStale(!isFresh || 'stale' in live.dataset); // may have been set during the fetch
      else if (!isFresh) say('error', answer ? words.stale.replace('{status}', answer.status) : words.away);
      if (hasChanged) follow();
    }
    return answer !== null;
  };

  // Called at each change of a count. Runs one fetch at a time.
  const follow = () => {
    hasChanged = isFetching;
    if (!isFetching) refresh({ quietly: true });
  };

  const showStale = (isStale) => {
    document.getElementById('echo-stale').hidden = !isStale;
  };

  const followMembers = (url) => {
    const list = who.querySelector('.echo-members');
    list.dataset.url = url;
    list.dispatchEvent(new CustomEvent('echo-follow', { bubbles: true }));
  };

  const showMembers = async (name) => {
    if (!who) return;
    const url = `${words.root}${encodeURIComponent(name)}/members`;
    const asking = socket;
    const isDenied = await isForbidden(url);
    if (socket !== asking || !isOpen()) return;
    who.querySelector('h3 bdi').textContent = name;
    followMembers(isDenied ? '' : `${url}/live`);
    if (isDenied) who.querySelector('.echo-note').textContent = who.dataset.denied;
    who.hidden = false;
  };

  const hideMembers = () => {
    if (!who) return;
    who.hidden = true;
    followMembers('');
  };

  const isForbidden = async (url) => {
    try {
      return (await fetch(url, { method: 'HEAD' })).status === 403;
    } catch {
      return false; // no response
    }
  };

  const address = () => {
    const name = encodeURIComponent(connectForm.elements.object.value);
    const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
    return `${scheme}//${location.host}${words.root}${name}/websocket`;
  };

  const opened = () => {
    say('opened', socket.url);
    showState();
    sendForm.elements.text.focus();
    refresh();
    showMembers(connectForm.elements.object.value);
  };

  const closed = async (event, wasOpen) => {
    const focused = document.activeElement;
    showState();
    hideMembers();
    if (focused && focused.matches(':disabled')) connectForm.elements.object.focus();
    if (wasOpen) say('closed', describe(event));
    if (!(await refresh())) return;
    if (!wasOpen) say('error', words.rejected);
    else setTimeout(refresh, SECOND); // some servers update the count later, or are about to stop
  };

  const describe = (event) => {
    // a function, since a replacement string may contain patterns like $&
    const reason = event.reason ? words.reason.replace('{reason}', () => event.reason) : words.noReason;
    return [`${words.code} ${event.code}`, reason, event.wasClean ? words.clean : words.unclean].join(', ');
  };

  const connect = () => {
    let wasOpen = false;
    socket = new WebSocket(address());
    socket.addEventListener('open', () => {
      wasOpen = true;
      opened();
    });
    socket.addEventListener('message', (event) => say('received', String(event.data)));
    socket.addEventListener('close', (event) => closed(event, wasOpen));
    showState();
  };

  const send = () => {
    if (!isOpen()) return; // closing: nothing would be sent
    const { text } = sendForm.elements;
    socket.send(text.value);
    say('sent', text.value);
    text.value = '';
  };

  const close = () => {
    const { code, reason } = closeForm.elements;
    try {
      socket.close(Number(code.value), reason.value);
    } catch {
      say('error', words.closeRule);
    }
  };

  const onSubmit = (form, action) => {
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      action();
    });
  };

  onSubmit(connectForm, connect);
  onSubmit(sendForm, send);
  onSubmit(closeForm, close);
  if (live) { // missing if the template omits it, or the user may not list the objects
    live.addEventListener('echo-count', follow);
    live.addEventListener('echo-stale', ({ detail }) => showStale(detail));
  }
  document.getElementById('echo-unscripted').remove();
  panel.hidden = false;
}
