// The console of the usage page. Names and texts come from strangers: textContent only.
'use strict';

{
  const LINES = 500; // older ones leave the log
  const SECOND = 1000; // milliseconds

  const panel = document.getElementById('echo-console');
  const words = panel.dataset;
  const log = panel.querySelector('[role=log]');
  const [connectForm, sendForm, closeForm] = panel.querySelectorAll('form');
  let socket = null;
  let latest = 0;

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
      return null; // nobody answers
    }
  };

  const replaceTable = ({ status, text }) => {
    const shown = document.getElementById('echo-objects');
    if (!shown) return; // a site's own template may leave it out
    const page = new DOMParser().parseFromString(text, 'text/html');
    const fresh = page.getElementById('echo-objects');
    if (fresh) shown.replaceWith(document.adoptNode(fresh));
    else say('error', `${words.stale} ${status}.`);
  };

  // Gives the table as it is on the page now, and returns whether the server answers.
  const refresh = async () => {
    const ticket = ++latest;
    const answer = await fetchPage();
    if (ticket === latest) { // else a newer one is on its way
      if (answer) replaceTable(answer);
      else say('error', words.away);
    }
    return answer !== null;
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
  };

  const closed = async (event, wasOpen) => {
    const focused = document.activeElement;
    showState();
    if (focused && focused.matches(':disabled')) connectForm.elements.object.focus();
    if (wasOpen) say('closed', describe(event));
    if (!(await refresh())) return;
    if (!wasOpen) say('error', words.refused);
    else setTimeout(refresh, SECOND); // some servers count a moment longer, or are about to end
  };

  const describe = (event) => {
    const reason = event.reason ? `“${event.reason}”` : words.noReason;
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
    if (!isOpen()) return; // on its way to the end: nothing would be sent
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
  panel.hidden = false;
}
