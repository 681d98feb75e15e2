// The clients of a Socket.IO cluster, the same number at each port. Prints "ready" when all are connected.
const { io } = require('socket.io-client');

const ports = process.env.PORTS.split(',');
const number = Number(process.env.NUMBER);
let connected = 0;

for (let key = 0; key < number; key += 1) {
  const socket = io(`http://127.0.0.1:${ports[key % ports.length]}`, {
    transports: ['websocket'],
    auth: { key: `${key}` },
    forceNew: true,
    reconnection: false,
  });
  socket.on('connect', () => {
    connected += 1;
    if (connected === number) {
      console.log('ready');
    }
  });
}
process.stdin.on('end', () => process.exit()).resume();
