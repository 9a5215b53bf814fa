#!/usr/bin/env python3
"""Churn for minutes, then the balance sheet.

Processes of clients open connections, use them and end them in every way there is, as fast as the server takes them.
At the end what the clients counted must be what the server says: accepted = active + closed by reason, messages and
bytes to the last one, and the connections the server calls open must be those the kernel shows.

    benches/soak.py --server target/ci/tidegate --minutes 3

Exit codes: 0 it balances · 1 it does not · 2 it could not run.
"""
import argparse
import json
import multiprocessing
import os
import pathlib
import random
import socket
import struct
import sys
import tempfile
import time
import urllib.error
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))
import harness  # noqa: E402

CONFIG = """
[monitor]
listen = ["127.0.0.1:{monitor}"]
requests_per_second = 1000
[http]
head_timeout = "1s"
[websocket]
ping_interval = "2s"
pong_timeout = "1s"
"""
PATIENCE = 20
HELD = 100
ASKED = 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_server_arguments(parser)
    parser.add_argument("--minutes", type=float, default=2, help="how long to churn (default: 2)")
    parser.add_argument("--clients", type=int, default=4, help="processes of clients (default: 4)")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="of the clients' choices")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    monitor, = harness.free_ports(1)
    with tempfile.TemporaryDirectory(prefix="tidegate-soak-") as scratch:
        config = CONFIG.format(monitor=monitor)
        with harness.Server(harness.templates(arguments), pathlib.Path(scratch), config, False) as server:
            # The harness asked whether the two listeners are there: connections that nobody else counts.
            base = f"http://127.0.0.1:{monitor}"
            before = settle(base, lambda m: m["tidegate_connections_closed_total"] == ASKED, "the server is at rest")
            until = time.monotonic() + 60 * arguments.minutes
            work = [(server.plain_port, until, arguments.seed + number) for number in range(arguments.clients)]
            with multiprocessing.Pool(arguments.clients) as pool:
                counts = pool.starmap(churn, work)
            problems = balance(base, before, sum_of(counts), server)
            problems += [problem for problem in [server.stop()] if problem]
    for problem in problems:
        print(f"FAILED {problem}")
    print("it does not balance" if problems else "it balances")
    return 1 if problems else 0


def sum_of(counts):
    total = {}
    for one in counts:
        for name, value in one.items():
            total[name] = total.get(name, 0) + value
    return total


def figures(base):
    """Each metric summed over its labels, and the connections closed by reason."""
    with urllib.request.urlopen(base + "/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("#"):
            continue
        series, value = line.rsplit(" ", 1)
        name = series.split("{", 1)[0]
        if "le=" not in series:
            found[name] = found.get(name, 0) + float(value)
    return found


def settle(base, condition, what):
    deadline, now = time.monotonic() + PATIENCE, None
    while time.monotonic() < deadline:
        try:
            now = figures(base)
            if condition(now):
                return now
        except urllib.error.HTTPError as error:
            # It is starting.
            if error.code != 503:
                raise
        time.sleep(0.2)
    raise harness.Unusable(f"{what}: not within {PATIENCE} s: {now}")


def balance(base, before, counted, server):
    """What does not balance, in words."""
    problems = []

    def check(what, found, expected):
        line = f"{what}: {found:,.0f}"
        if found == expected:
            print(line, flush=True)
        else:
            problems.append(f"{line} instead of {expected:,.0f}")

    held = []
    for _ in range(HELD):
        held.append(Peer(server.plain_port, "/echo"))
    after = settle(base, lambda m: m["tidegate_connections"] == HELD, "only those that are held are left")

    def grown(name):
        return after[name] - before[name]

    check("connections held", after["tidegate_connections_open"], HELD)
    check("connections the kernel shows", established(server.plain_port, HELD), HELD)
    check("accepted", grown("tidegate_connections_accepted_total"), counted["connected"] + HELD)
    check("accepted = active + closed", grown("tidegate_connections_accepted_total"),
          HELD + grown("tidegate_connections_closed_total"))
    check("opened", grown("tidegate_connections_opened_total"), counted["opened"] + HELD)
    check("messages received", grown("tidegate_messages_received_total"), counted["messages"])
    check("bytes received", grown("tidegate_received_bytes_total"), counted["bytes"])
    check("messages sent", grown("tidegate_messages_sent_total"), counted["messages"])
    check("bytes sent", grown("tidegate_sent_bytes_total"), counted["bytes"])
    check("messages timed on their way out", grown("tidegate_send_latency_seconds_count"), counted["messages"])
    check("durations", grown("tidegate_connection_duration_seconds_count"), counted["opened"])
    check("on the way in: opened, refused or abandoned", grown("tidegate_connections_opened_total")
          + grown("tidegate_refusals_total") + grown("tidegate_handshakes_abandoned_total"),
          counted["connected"] + HELD)
    check("panics", grown("tidegate_handler_panics_total"), 0)
    check("bytes waiting", after["tidegate_outbox_bytes"], 0)
    with urllib.request.urlopen(base + "/api/monitoring/websocket/connections/?limit=1", timeout=PATIENCE) as answer:
        check("rows of the inspector", json.load(answer)["total"], HELD)
    for peer in held:
        peer.socket.close()
    print(f"descriptors {after['process_open_fds']:.0f}, resident {after['process_resident_memory_bytes'] / 1e6:.0f} MB",
          flush=True)
    return problems


def established(port, expected):
    """Connections to this port of ours, as the kernel shows them. It shows its table piece by piece, and what moves
    meanwhile may be missed: so it is asked again for a while."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with open("/proc/net/tcp", encoding="ascii") as table:
            lines = [line.split() for line in list(table)[1:]]
        count = sum(words[1].endswith(f":{port:04X}") and words[3] == "01" for words in lines)
        if count == expected or time.monotonic() > deadline:
            return count
        time.sleep(0.5)


class Peer:
    """A client that speaks bytes."""

    def __init__(self, port, path=None):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pending = b""
        if path:
            self.ask(path)
            assert self.head().startswith(b"HTTP/1.1 101 ")

    def ask(self, path, more=""):
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
                            .encode())

    def fill(self):
        more = self.socket.recv(1 << 20)
        self.pending += more
        return bool(more)

    def head(self):
        while b"\r\n\r\n" not in self.pending:
            if not self.fill():
                return self.pending
        head, self.pending = self.pending.split(b"\r\n\r\n", 1)
        return head

    def send(self, first, payload):
        length = len(payload)
        if length < 126:
            head = struct.pack("!BB", first, 0x80 | length)
        else:
            head = struct.pack("!BBH", first, 0x80 | 126, length)
        # A mask of zeros is a mask.
        self.socket.sendall(head + bytes(4) + payload)

    def frame(self):
        """The next frame's first byte and payload, or None at the end."""
        while True:
            if len(self.pending) >= 2:
                start, length = 2, self.pending[1]
                if length == 126 and len(self.pending) >= 4:
                    start, length = 4, struct.unpack_from("!H", self.pending, 2)[0]
                if length != 126 or start == 4:
                    if len(self.pending) >= start + length:
                        first, payload = self.pending[0], self.pending[start:start + length]
                        self.pending = self.pending[start + length:]
                        return first, payload
            if not self.fill():
                return None

    def drain(self):
        try:
            while self.fill():
                self.pending = b""
        except ConnectionError:
            pass

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def churn(port, until, seed):
    """One process of clients; what it counted."""
    choice = random.Random(seed)
    counted = {"connected": 0, "opened": 0, "messages": 0, "bytes": 0}
    ways = [closes, resets, leaves, violates, too_long, not_found, malformed, comes_and_goes, half_a_head,
            half_a_frame, pipelines]
    while time.monotonic() < until:
        if choice.random() < 0.001:
            way = choice.choice([silent, too_slow])
        else:
            way = choice.choice(ways)
        way(port, choice, counted)
    return counted


def connected(port, counted):
    counted["connected"] += 1
    return Peer(port)


def used(port, choice, counted):
    """An open connection that has had some messages echoed."""
    counted["connected"] += 1
    peer = Peer(port, "/echo")
    counted["opened"] += 1
    for _ in range(choice.randrange(4)):
        payload = bytes(choice.randrange(2000))
        peer.send(0x82, payload)
        assert peer.frame() == (0x82, payload)
        counted["messages"] += 1
        counted["bytes"] += len(payload)
    return peer


def closes(port, choice, counted):
    peer = used(port, choice, counted)
    peer.send(0x88, struct.pack("!H", 1000))
    assert peer.frame() == (0x88, struct.pack("!H", 1000))
    peer.drain()
    peer.socket.close()


def resets(port, choice, counted):
    used(port, choice, counted).reset()


def leaves(port, choice, counted):
    used(port, choice, counted).socket.close()


def violates(port, choice, counted):
    peer = used(port, choice, counted)
    peer.socket.sendall(b"\x81\x01x")
    assert peer.frame()[1][:2] == struct.pack("!H", 1002)
    peer.drain()
    peer.socket.close()


def too_long(port, choice, counted):
    peer = used(port, choice, counted)
    peer.socket.sendall(b"\x82\xff" + (1 << 31).to_bytes(8) + bytes(4))
    assert peer.frame()[1][:2] == struct.pack("!H", 1009)
    peer.drain()
    peer.socket.close()


def not_found(port, choice, counted):
    peer = connected(port, counted)
    peer.ask(f"/{choice.random()}")
    assert peer.head().startswith(b"HTTP/1.1 404 ")
    peer.drain()
    peer.socket.close()


def malformed(port, _choice, counted):
    peer = connected(port, counted)
    peer.socket.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    assert peer.head().startswith(b"HTTP/1.1 400 ")
    peer.drain()
    peer.socket.close()


def comes_and_goes(port, _choice, counted):
    connected(port, counted).socket.close()


def half_a_head(port, choice, counted):
    peer = connected(port, counted)
    peer.socket.sendall(b"GET /echo HTTP/1.1\r\nHos"[:choice.randrange(1, 20)])
    peer.reset()


def half_a_frame(port, choice, counted):
    peer = used(port, choice, counted)
    peer.socket.sendall(b"\x82\x85\0\0\0\0he")
    peer.socket.close()


def pipelines(port, choice, counted):
    """Many messages at once, read back afterwards."""
    peer = used(port, choice, counted)
    payloads = [bytes(choice.randrange(500)) for _ in range(100)]
    for payload in payloads:
        peer.send(0x82, payload)
    for payload in payloads:
        assert peer.frame() == (0x82, payload)
        counted["messages"] += 1
        counted["bytes"] += len(payload)
    peer.reset()


def silent(port, choice, counted):
    peer = used(port, choice, counted)
    peer.drain()
    peer.socket.close()


def too_slow(port, _choice, counted):
    peer = connected(port, counted)
    peer.socket.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n")
    assert peer.head().startswith(b"HTTP/1.1 408 ")
    peer.drain()
    peer.socket.close()


if __name__ == "__main__":
    harness.run(main)
