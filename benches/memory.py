#!/usr/bin/env python3
"""Resident memory of the program with many real connections: idle, in a burst, and after it.

    benches/memory.py                         # target/release/tidegate, 10,000 connections, plain, then TLS
    benches/memory.py --server BINARY --connections 2000 --modes plain --json memory.json

In the burst every connection sends a message of 16 KiB in two halves, the second when all have sent the first, and three
more behind it, and reads nothing before all have sent everything. The clients' sockets have small segments and small
buffers, so that the kernel cannot take all of the echoes and the rest waits in the server's outboxes. Then everything is
read, and after ten seconds of silence the server's resident memory should be back within a tenth of what it was. All of
it happens twice: what an allocator keeps of its first burst for its own books, it does not keep of the second.

The clients are processes of their own, as a process may have a limited number of descriptors. Pings are off: nothing
but the bursts move. Exit code 1 if memory did not come back.
"""
import argparse
import json
import multiprocessing
import os
import pathlib
import socket
import ssl
import struct
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
import harness  # noqa: E402

CONFIG = """
[websocket]
ping_interval = "off"
[outbox]
write_timeout = "60s"
[log]
level = "warn"
"""
REQUEST = (b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
MESSAGE_BYTES = 16 * 1024
MESSAGES = 4
# A masked frame whose key is zero, and what comes back for it.
SENT = bytes([0x82, 0xfe]) + MESSAGE_BYTES.to_bytes(2, "big") + bytes(4) + bytes(MESSAGE_BYTES)
ECHOED = len(SENT) - 4
# With these the kernel takes about 50 KB of a loopback connection's echoes, and 150 KB of what is sent to the server.
SEGMENT_BYTES = 256
RECEIVE_BUFFER_BYTES = 2304
ROOMY_BUFFER_BYTES = 256 * 1024
IDLE_SECONDS = 10
PATIENCE_SECONDS = 60


class Clients:
    """A process with a share of the connections; `do` runs a method there, `done` waits for its end."""

    def __init__(self, port, tls):
        self.port, self.tls = port, tls
        self.sockets = []
        self.here, there = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self._work, args=(there,), daemon=True)
        self.process.start()
        there.close()

    def do(self, method, *arguments):
        """Starts a method in the process."""
        self.here.send((method, arguments))

    def done(self):
        """Waits for the method; what it raised there is raised here."""
        if not self.here.poll(PATIENCE_SECONDS):
            raise harness.Unusable(f"a client did not finish within {PATIENCE_SECONDS} s")
        error = self.here.recv()
        if error:
            raise harness.Unusable(error)

    def end(self):
        """Ends the process, and its connections with it."""
        self.process.kill()
        self.process.join()

    def _work(self, there):
        while True:
            method, arguments = there.recv()
            try:
                getattr(self, method)(*arguments)
                there.send(None)
            except Exception as error:  # Whatever it was, the other end wants to know.
                there.send(f"{method}: {error!r}")

    def open(self, count):
        """Opens so many connections more."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for _ in range(count):
            one = socket.socket()
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            # Reset at the end: thousands of ports in TIME_WAIT would be in the way of the next run.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.settimeout(PATIENCE_SECONDS)
            one.connect(("127.0.0.1", self.port))
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                one = context.wrap_socket(one, server_hostname="localhost")
            one.sendall(REQUEST)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                piece = one.recv(4096)
                if not piece:
                    raise ConnectionError(f"refused: {head!r}")
                head += piece
            if not head.startswith(b"HTTP/1.1 101 "):
                raise ConnectionError(f"refused: {head!r}")
            self.sockets.append(one)

    def send_half(self):
        """Half of a message on every connection."""
        for one in self.sockets:
            one.sendall(SENT[:len(SENT) // 2])

    def send_rest(self):
        """The other half, and more messages."""
        for one in self.sockets:
            one.sendall(SENT[len(SENT) // 2:] + SENT * (MESSAGES - 1))

    def read_all(self):
        """All echoes, to the byte."""
        buffer = bytearray(64 * 1024)
        for one in self.sockets:
            # What waited for a slow reader is let through quickly.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOMY_BUFFER_BYTES)
            missing = ECHOED * MESSAGES
            while missing:
                count = one.recv_into(buffer, min(missing, len(buffer)))
                if not count:
                    raise ConnectionError("closed within an echo")
                missing -= count


def resident(process):
    """The resident memory of a process in bytes, to the page: VmRSS in `status` may be off by 64 pages a core."""
    with open(f"/proc/{process.pid}/smaps_rollup") as lines:
        for line in lines:
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    raise harness.Unusable("no Rss in smaps_rollup")


def measure(server, tls, connections):
    """One mode against a server that has just started: a dictionary of figures in bytes."""
    process = server.process(tls)
    port = server.tls_port if tls else server.plain_port
    count = max(1, len(os.sched_getaffinity(0)))
    shares = [connections // count + (number < connections % count) for number in range(count)]
    everybody = [Clients(port, tls) for _ in shares]
    warm = Clients(port, tls)

    def all_do(method, *arguments, of=everybody):
        for clients in of:
            clients.do(method, *arguments)
        for clients in of:
            clients.done()

    figures = {"mode": "tls" if tls else "plain", "connections": connections}
    try:
        # The buffers that belong to the reactors get their size from connections that end again.
        all_do("open", 8, of=[warm])
        all_do("send_half", of=[warm])
        all_do("send_rest", of=[warm])
        all_do("read_all", of=[warm])
        warm.end()
        time.sleep(1)
        figures["started"] = resident(process)
        for clients, share in zip(everybody, shares):
            clients.do("open", share)
        for clients in everybody:
            clients.done()
        # As long a silence as after the burst: within it, the monitor's thread has a row of each connection as well.
        time.sleep(IDLE_SECONDS)
        figures["idle"] = resident(process)
        figures["idle_per_connection"] = (figures["idle"] - figures["started"]) / connections
        for burst in ("", "_again"):
            all_do("send_half")
            time.sleep(0.2)
            figures["half_a_message_each" + burst] = resident(process)
            all_do("send_rest")
            time.sleep(0.2)
            figures["outboxes_full" + burst] = resident(process)
            all_do("read_all")
            figures["just_after" + burst] = resident(process)
            figures["each_second_after" + burst] = []
            for _ in range(IDLE_SECONDS):
                time.sleep(1)
                figures["each_second_after" + burst].append(resident(process))
            figures["after" + burst] = figures["each_second_after" + burst][-1]
        figures["after_to_idle"] = figures["after"] / figures["idle"]
        figures["again_to_after"] = figures["after_again"] / figures["after"]
    finally:
        for clients in [*everybody, warm]:
            clients.end()
    return figures


def table(results):
    """The figures as Markdown."""
    columns = [("started", "started"), ("idle", "idle"), ("half_a_message_each", "half a message each"),
               ("outboxes_full", "outboxes full"), ("just_after", "all read"), ("after", f"{IDLE_SECONDS} s later"),
               ("after_again", "after a second burst")]
    lines = ["| | per idle connection | " + " | ".join(title for _, title in columns) + " | to idle | second to first |",
             "|---|" + "---|" * (len(columns) + 3)]
    for one in results:
        cells = [f"{one['mode']}, {one['connections']} connections", f"{one['idle_per_connection']:,.0f} B"]
        cells += [f"{one[name] / 2**20:,.1f} MiB" for name, _ in columns]
        cells += [f"{one[name]:.2f}" for name in ("after_to_idle", "again_to_after")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    """Measures, prints, judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_server_arguments(parser)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--modes", nargs="+", choices=["plain", "tls"], default=["plain", "tls"])
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures here as well")
    arguments = parser.parse_args()
    commands = harness.templates(arguments)
    results = []
    for mode in arguments.modes:
        with tempfile.TemporaryDirectory() as folder:
            with harness.Server(commands, pathlib.Path(folder), CONFIG, False) as server:
                try:
                    results.append(measure(server, mode == "tls", arguments.connections))
                except harness.Unusable as error:
                    raise harness.Unusable(f"{mode}: {error}\n{server.log_tail()}") from error
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(max(one["after_to_idle"], one["again_to_after"]) <= 1.1 for one in results) else 1


if __name__ == "__main__":
    harness.run(main)
