// A peer on Node's ws: /broadcast sends every message to all clients of the route, any other path echoes.
// Usage: node server.mjs PORT [CERTIFICATE KEY]. No compression; Node sets TCP_NODELAY on its sockets.
import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import { WebSocketServer } from "ws";

const [port, certificate, key] = process.argv.slice(2);
const server = certificate
  ? https.createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key) })
  : http.createServer();
const members = new Set();

function join(socket) {
  members.add(socket);
  socket.on("close", () => members.delete(socket));
  socket.on("message", (data, isBinary) => {
    for (const member of members) member.send(data, { binary: isBinary });
  });
}

const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on("connection", (socket, request) => {
  socket.on("error", () => socket.terminate());
  if (request.url === "/broadcast") join(socket);
  else socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});
server.listen({ host: "127.0.0.1", port: Number(port), backlog: 4096 });
