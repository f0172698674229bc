// Answers every request with one line.
const http = require('node:http');

http.createServer((_, reply) => {
  reply.writeHead(200, { 'Content-Length': 6 });
  reply.end('hello\n');
}).listen(process.env.QUIPU_SOCKET ? { path: process.env.QUIPU_SOCKET } : { host: '127.0.0.1', port: process.env.PORT });
