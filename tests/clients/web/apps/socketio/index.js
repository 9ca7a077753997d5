// The chat of Socket.IO's "Get started", with acknowledgements.
const express = require('express');
const { createServer } = require('node:http');
const { Server } = require('socket.io');

const app = express();
const server = createServer(app);
const io = new Server(server);

app.get('/', (req, res) => {
  res.send('<h1>Hello world</h1><script src="socket.io/socket.io.js"></script>');
});

io.on('connection', (socket) => {
  console.log('a user connected');
  socket.on('chat message', (msg) => io.emit('chat message', msg));
  socket.on('hello', (arg, callback) => callback(`got it: ${arg}`));
  socket.on('binary', (data, callback) => callback(data));
});

server.listen(process.env.PORT || 3000, () => {
  console.log('server running');
});
