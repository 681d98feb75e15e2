// Node's `ws` with permessage-deflate as its documentation recommends to leave it: zlib's defaults.
const { WebSocketServer } = require('ws');

const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.env.PORT), perMessageDeflate: true });
server.on('connection', (socket) => socket.on('message', (data) => socket.send(data.toString())));
