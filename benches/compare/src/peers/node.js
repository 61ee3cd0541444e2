'use strict';
// Echo on the net module: framing by hand, and one write for all lines of a chunk.
const net = require('node:net');
const { isUtf8 } = require('node:buffer');

const GREETING =
  'Welcome to the Reactor Server.\n' +
  'Send me text lines and conclude with the BYE command.\n';
const LF = 10;

// What is not UTF-8 is taken as bytes, of which only the ASCII letters change.
function upper(bytes) {
  return isUtf8(bytes)
    ? Buffer.from(bytes.toString('utf8').toUpperCase())
    : Buffer.from(bytes.map((b) => (b >= 97 && b <= 122 ? b - 32 : b)));
}

// The replies to complete lines, each with its LF, and whether the last of them is BYE.
function answer(bytes) {
  if (isUtf8(bytes)) {
    let out = '';
    const lines = bytes.toString('utf8').toUpperCase().split('\n');
    lines.pop();
    for (const whole of lines) {
      const line = whole.endsWith('\r') ? whole.slice(0, -1) : whole;
      out += '> ' + line + '\n';
      if (line === 'BYE') return [out, true];
    }
    return [out, false];
  }
  const out = [];
  for (let start = 0; start < bytes.length; ) {
    const end = bytes.indexOf(LF, start);
    const text = bytes.subarray(start, end > start && bytes[end - 1] === 13 ? end - 1 : end);
    const line = upper(text);
    out.push(Buffer.from('> '), line, Buffer.from('\n'));
    if (line.length === 3 && line.toString('latin1') === 'BYE') return [Buffer.concat(out), true];
    start = end + 1;
  }
  return [Buffer.concat(out), false];
}

const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  let rest = null;
  socket.write(GREETING);
  socket.on('error', () => socket.destroy());
  socket.on('drain', () => socket.resume());
  socket.on('data', (chunk) => {
    const bytes = rest === null ? chunk : Buffer.concat([rest, chunk]);
    const end = bytes.lastIndexOf(LF) + 1;
    rest = end < bytes.length ? bytes.subarray(end) : null;
    if (end === 0) return;
    const [out, bye] = answer(bytes.subarray(0, end));
    if (bye) {
      socket.removeAllListeners('data');
      socket.end(out, () => socket.destroy());
    } else if (!socket.write(out)) {
      socket.pause();
    }
  });
  socket.on('end', () => {
    if (rest === null || socket.writableEnded) return socket.end();
    socket.end(answer(Buffer.concat([rest, Buffer.from('\n')]))[0]);
  });
});

server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 1024 }, () => {
  console.log(server.address().port);
});
