// The same job with node's `ws`: `node ws.js PORT`.

import { createServer } from 'node:http';

import { WebSocketServer } from 'ws';

let connections = 0;

const server = createServer((request, response) => {
  const [verb, clients] = connections === 1 ? ['is', 'client'] : ['are', 'clients'];
  response.end(
    `There ${verb} ${connections} WebSocket ${clients} connected to this Durable Object instance.`,
  );
});

new WebSocketServer({ server }).on('connection', (socket) => {
  connections += 1;
  socket.on('message', (text) => socket.send(`[Durable Object]: ${text}`));
  socket.on('close', () => {
    connections -= 1;
  });
});

server.listen(Number(process.argv[2]), '127.0.0.1');
