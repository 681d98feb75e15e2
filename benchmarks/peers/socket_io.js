// Socket.IO, by WebSocket from the start: with its own packets and heartbeat on top.
const { createServer } = require('node:http');
const { Server } = require('socket.io');

const server = createServer((request, response) => {
  if (!request.url.endsWith('/getCurrentConnections')) {
    response.statusCode = 404;
  }
  response.end(`${io.engine.clientsCount}`);
});
const io = new Server(server, { transports: ['websocket'] });

io.on('connection', (socket) => {
  socket.on('message', (text) => {
    if (text.startsWith('all:')) {
      io.send(text);
    } else {
      socket.send(`[Durable Object]: ${text}`);
    }
  });
});

server.listen(Number(process.env.PORT), '127.0.0.1', 4096);
