// The same job by the Hibernation API; a text that starts with "all:" goes to all sockets.

export default {
  fetch(request, env) {
    return env.OBJECTS.get(env.OBJECTS.idFromName('foo')).fetch(request);
  },
};

export class EchoObject {
  constructor(state) {
    this.state = state;
  }

  fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname.endsWith('/getCurrentConnections')) {
      return new Response(`${this.state.getWebSockets().length}`);
    }
    if (!pathname.endsWith('/websocket')) {
      return new Response('Not found', { status: 404 });
    }
    if (request.headers.get('Upgrade') !== 'websocket') {
      return new Response('Expected Upgrade: websocket', { status: 426 });
    }
    const { 0: client, 1: server } = new WebSocketPair();
    this.state.acceptWebSocket(server);
    return new Response(null, { status: 101, webSocket: client });
  }

  webSocketMessage(socket, text) {
    if (!text.startsWith('all:')) {
      socket.send(`[Durable Object]: ${text}`);
      return;
    }
    for (const member of this.state.getWebSockets()) {
      member.send(text);
    }
  }

  webSocketClose(socket, code) {
    socket.close(code, 'Durable Object is closing WebSocket');
  }
}
