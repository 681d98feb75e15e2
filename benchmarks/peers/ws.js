// Node's most used WebSocket server, `ws`.
const { createServer } = require('node:http');
const { WebSocketServer } = require('ws');

const server = createServer((request, response) => {
  if (!request.url.endsWith('/getCurrentConnections')) {
    response.statusCode = 404;
  }
  response.end(`${sockets.clients.size}`);
});
const sockets = new WebSocketServer({ server });

sockets.on('connection', (socket) => {
  socket.on('message', (data) => {
    const text = data.toString();
    if (!text.startsWith('all:')) {
      socket.send(`[Durable Object]: ${text}`);
      return;
    }
    for (const member of sockets.clients) {
      member.send(text);
    }
  });
});

server.listen(Number(process.env.PORT), '127.0.0.1', 4096);
