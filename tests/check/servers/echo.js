// The echo server as one writes it after the first lesson on Node.js. Usage: node echo.js HOST PORT
const net = require('net');

const server = net.createServer((socket) => {
  socket.write('Welcome to the Reactor Server.\n');
  socket.write('Send me text lines and conclude with the BYE command.\n');
  socket.on('data', (data) => {
    const line = data.toString().trim();
    socket.write('> ' + line.toUpperCase() + '\n');
    if (line.toLowerCase() === 'bye') {
      socket.end();
    }
  });
});

server.listen(Number(process.argv[3]), process.argv[2]);
