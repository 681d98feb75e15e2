// What Cloudflare's "Build a WebSocket server" does: one object, event listeners, a counter.

export default {
  fetch(request, env) {
    return env.OBJECTS.get(env.OBJECTS.idFromName('foo')).fetch(request);
  },
};

export class EchoObject {
  connections = 0;

  fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname.endsWith('/getCurrentConnections')) {
      return new Response(`${this.connections}`);
    }
    if (!pathname.endsWith('/websocket')) {
      return new Response('Not found', { status: 404 });
    }
    if (request.headers.get('Upgrade') !== 'websocket') {
      return new Response('Expected Upgrade: websocket', { status: 426 });
    }
    const { 0: client, 1: server } = new WebSocketPair();
    this.serve(server);
    return new Response(null, { status: 101, webSocket: client });
  }

  serve(socket) {
    socket.accept();
    this.connections += 1;
    socket.addEventListener('message', ({ data }) => {
      socket.send(`[Durable Object]: ${data}`);
    });
    socket.addEventListener('close', ({ code }) => {
      this.connections -= 1;
      socket.close(code, 'Durable Object is closing WebSocket');
    });
  }
}
