// The console and the table of the usage page. Names and texts are untrusted: use textContent only.
'use strict';

{
  const LINES = 500; // of the log; older ones are removed
  const SECOND = 1000; // milliseconds
  const MAX_DELAY = 30 * SECOND; // until the next attempt to connect again
  const STABLE = 5 * SECOND; // a connection that stayed open for less does not reset the delay

  const panel = document.getElementById('echo-console');
  const words = panel.dataset;
  const log = panel.querySelector('[role=log]');
  const live = document.getElementById('echo-live');
  const who = document.getElementById('echo-who'); // missing if the user may not see members
  const [connectForm, sendForm, closeForm] = panel.querySelectorAll('form');
  let socket = null;
  let name = ''; // the object of the socket
  let attempts = 0; // to connect again, since the last stable connection
  let isWanted = false; // whether the user has not closed the connection
  let isReconnecting = false; // from the end of a connection until the next is open
  let timer = 0; // of the next attempt
  let latest = 0; // number of the last fetch of the table
  let isFetching = false;
  let hasChanged = false; // whether a count has changed during the fetch

  // After other codes, a new connection would end like the last one, or needs the user.
  const reasons = { 1006: words.lost, 1012: words.restart };

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
    enable(closeForm, isOpen() || isReconnecting);
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
    const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
    return `${scheme}//${location.host}${words.root}${encodeURIComponent(name)}/websocket`;
  };

  const opened = () => {
    say('opened', socket.url);
    const wasReconnecting = isReconnecting;
    isReconnecting = false;
    showState();
    if (!wasReconnecting) sendForm.elements.text.focus(); // else the user may be elsewhere
    refresh();
    showMembers(name);
  };

  const closed = async (event, wasOpen, wasStable) => {
    const focused = document.activeElement;
    const wasReconnecting = isReconnecting;
    if (wasStable) attempts = 0;
    if (wasOpen) say('closed', describe(event));
    if (wasOpen && isWanted && event.code in reasons) isReconnecting = true;
    if (isReconnecting) openLater(wasOpen ? reasons[event.code] : words.failed);
    showState();
    hideMembers();
    if (focused && focused.matches(':disabled')) connectForm.elements.object.focus();
    if (wasReconnecting) return;
    if (!(await refresh())) return;
    if (wasOpen) setTimeout(refresh, SECOND); // some servers update the count later, or are about to stop
    else if (isWanted) say('error', words.rejected);
  };

  // Full jitter: otherwise all clients of a process that stops would come back at the same time.
  const openLater = (reason) => {
    const delay = Math.random() * Math.min(SECOND * 2 ** attempts, MAX_DELAY);
    attempts += 1;
    timer = setTimeout(open, delay);
    const again = words.again.replace('{seconds}', Math.ceil(delay / SECOND));
    say('waiting', `${reason} ${again}`);
  };

  const describe = (event) => {
    // a function, since a replacement string may contain patterns like $&
    const reason = event.reason ? words.reason.replace('{reason}', () => event.reason) : words.noReason;
    return [`${words.code} ${event.code}`, reason, event.wasClean ? words.clean : words.unclean].join(', ');
  };

  const open = () => {
    let since = null;
    socket = new WebSocket(address());
    socket.addEventListener('open', () => {
      since = performance.now();
      opened();
    });
    socket.addEventListener('message', (event) => say('received', String(event.data)));
    socket.addEventListener('close', (event) => {
      const wasOpen = since !== null;
      closed(event, wasOpen, wasOpen && performance.now() - since > STABLE);
    });
    showState();
  };

  const connect = () => {
    clearTimeout(timer);
    isReconnecting = false;
    isWanted = true;
    attempts = 0;
    name = connectForm.elements.object.value;
    open();
  };

  const send = () => {
    if (!isOpen()) return; // closing: nothing would be sent
    const { text } = sendForm.elements;
    socket.send(text.value);
    say('sent', text.value);
    text.value = '';
  };

  const close = () => {
    if (isReconnecting) {
      stopReconnecting();
      return;
    }
    const { code, reason } = closeForm.elements;
    try {
      socket.close(Number(code.value), reason.value);
      isWanted = false;
    } catch {
      say('error', words.closeRule);
    }
  };

  const stopReconnecting = () => {
    clearTimeout(timer);
    isWanted = isReconnecting = false;
    socket.close(); // it may be connecting
    say('waiting', words.stopped);
    showState();
    connectForm.elements.object.focus();
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
