// A process of a Socket.IO cluster with the Redis adapter. Prints "ready" when it listens. At each line of its
// input, lists the sockets of the room in all processes, and prints the milliseconds, their number, and the error.
const { createServer } = require('node:http');
const { createInterface } = require('node:readline');
const { createAdapter } = require('@socket.io/redis-adapter');
const { Redis } = require('ioredis');
const { Server } = require('socket.io');

const publisher = new Redis(process.env.REDIS_URL);
const server = createServer();
const io = new Server(server, {
  transports: ['websocket'],
  adapter: createAdapter(publisher, publisher.duplicate()),
});

io.on('connection', (socket) => {
  const { key } = socket.handshake.auth;
  socket.data = { key, info: { name: `Member ${key}` } };
  socket.join('lobby');
});

async function listed() {
  const began = performance.now();
  try {
    const sockets = await io.in('lobby').fetchSockets();
    const found = new Set(sockets.map((socket) => socket.data.key)).size;
    return { ms: performance.now() - began, found, error: '' };
  } catch (error) {
    return { ms: performance.now() - began, found: 0, error: error.message };
  }
}

const input = createInterface({ input: process.stdin });
input.on('line', async () => console.log(JSON.stringify(await listed())));
input.on('close', () => process.exit());
server.listen(Number(process.env.PORT), '127.0.0.1', 4096, () => console.log('ready'));
