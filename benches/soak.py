#!/usr/bin/env python3
"""Churn for minutes, then the balance sheet.

Processes of clients open connections, over plain TCP, TLS and behind a PROXY header, use them and end them in every way
there is, as fast as the server takes them: clean closes, resets, silence, violations, half of everything, kicks by an
administrator, refusals at every stage. At the end what the clients counted must be what the server says: accepted =
active + closed by reason, refusals by stage, messages and bytes to the last one, and the connections the server calls
open must be those the kernel shows. Then the server is ended while some are still there: what it has written down of the
day must have those too.

    benches/soak.py --server target/ci/tidegate --minutes 3

Exit codes: 0 it balances · 1 it does not · 2 it could not run.
"""
import argparse
import base64
import collections
import hashlib
import hmac
import json
import multiprocessing
import os
import pathlib
import random
import select
import shutil
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))
import harness  # noqa: E402

SECRET = "0123456789abcdef0123456789abcdef"
# Connections that one address may have, and one user.
PER_ADDRESS = 12
PER_USER = 2
CONFIG = f"""
[[listen]]
address = "127.0.0.1:{{plain}}"
[[listen]]
address = "127.0.0.1:{{tls}}"
tls = true
[[listen]]
address = "127.0.0.1:{{proxy}}"
proxy_protocol = true
[monitor]
listen = ["127.0.0.1:{{monitor}}"]
requests_per_second = 1000
tick_interval = "100ms"
daily_file = "{{daily}}"
[log]
level = "error"
[tls]
handshake_timeout = "1s"
[http]
head_timeout = "1s"
[websocket]
ping_interval = "6s"
pong_timeout = "2s"
message_timeout = "1s"
close_timeout = "1s"
[address]
trusted_networks = ["127.0.4.0/24"]
header = "x-forwarded-for"
[limits]
address_connections_max = {PER_ADDRESS}
[token]
secret = "{SECRET}"
[[route]]
path = "/members/"
kind = "echo"
token = "required"
rule = "role = 'member'"
origins = ["https://app.example"]
allow_absent_origin = true
user_connections_max = {PER_USER}
[[route]]
path = "/room/{{{{room}}}}/"
kind = "channels"
token = "none"
channels = ["room_{{{{room}}}}"]
[[route.relay]]
when = "any"
echo = true
"""
SERVER = "{binary} serve --config {config} --tls-cert {cert} --tls-key {key} --reactors 2"
PATIENCE = 20
HELD = 100
# Addresses of 127.0.0.0/8 that clients come from, by the second byte: those that are held, those that are trusted (a
# network of their own, see above), and those of each process, shared and not.
HOLDERS, TRUSTED, OWN, OWN_ALONE = 3, 4, 16, 100


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    parser.add_argument("--server", default=str(target / "release" / "tidegate"), metavar="BINARY")
    parser.add_argument("--minutes", type=float, default=2, help="how long to churn (default: 2)")
    parser.add_argument("--clients", type=int, default=4, help="processes of clients, at most 64 (default: 4)")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="of the clients' choices")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    binary = shutil.which(arguments.server)
    if not binary:
        raise harness.Unusable(f"no program at {arguments.server}; build it first (cargo build --release)")
    plain, tls, proxy, monitor = harness.free_ports(4)
    with tempfile.TemporaryDirectory(prefix="tidegate-soak-") as scratch:
        daily = pathlib.Path(scratch) / "daily.json"
        config = CONFIG.format(plain=plain, tls=tls, proxy=proxy, monitor=monitor, daily=daily)
        command = [word.replace("{binary}", binary) for word in SERVER.split()]
        server = harness.Server([command], pathlib.Path(scratch), config, False)
        # Its listeners are those of the configuration.
        server.plain_port, server.tls_port = plain, tls
        place = Place(plain, tls, proxy, f"http://127.0.0.1:{monitor}")
        with server:
            # The harness asked whether two listeners are there: connections that nobody else counts.
            before = settle(place, lambda m: m["tidegate_connections"] == 0 and m["tidegate_connections_accepted_total"] >= 2,
                            "the server is at rest")
            until = time.monotonic() + 60 * arguments.minutes
            work = [(place, until, arguments.seed + number, OWN + number) for number in range(arguments.clients)]
            with multiprocessing.Pool(arguments.clients) as pool:
                counted = sum(pool.starmap(churn, work), collections.Counter())
            ledger = Ledger()
            held = Held(place)
            balance(ledger, place, before, counted)
            ledger.note(server.stop())
            after_the_end(ledger, held, daily, before, counted)
    for problem in ledger.problems:
        print(f"FAILED {problem}")
    print("it does not balance" if ledger.problems else "it balances")
    return 1 if ledger.problems else 0


Place = collections.namedtuple("Place", "plain tls proxy base")


class Ledger:
    """What was compared, and what does not balance."""

    def __init__(self):
        self.problems = []

    def check(self, what, found, expected):
        line = f"{what}: {found:,.0f}"
        if found == expected:
            print(line, flush=True)
        else:
            self.problems.append(f"{line} instead of {expected:,.0f}")

    def note(self, problem):
        if problem:
            self.problems.append(problem)


def figures(place):
    """Each series by its name and labels, and each metric summed over its labels."""
    with urllib.request.urlopen(place.base + "/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    found = collections.Counter()
    for line in lines:
        if line.startswith("#") or "le=" in line:
            continue
        series, value = line.rsplit(" ", 1)
        found[series] += float(value)
        if "{" in series:
            found[series.split("{", 1)[0]] += float(value)
    return found


def settle(place, condition, what):
    deadline, now = time.monotonic() + PATIENCE, None
    while time.monotonic() < deadline:
        try:
            now = figures(place)
            if condition(now):
                return now
        except urllib.error.HTTPError as error:
            # It is starting.
            if error.code != 503:
                raise
        time.sleep(0.2)
    raise harness.Unusable(f"{what}: not within {PATIENCE} s: {now}")


def balance(ledger, place, before, counted):
    after = settle(place, lambda m: m["tidegate_connections"] == HELD, "only those that are held are left")

    def grown(name):
        return after[name] - before[name]

    check, connected = ledger.check, counted["connected"] + HELD
    closed, refused = grown("tidegate_connections_closed_total"), grown("tidegate_refusals_total")
    check("connections held", after["tidegate_connections_open"], HELD)
    check("connections the kernel shows", established((place.plain, place.tls, place.proxy), HELD), HELD)
    check("accepted", grown("tidegate_connections_accepted_total"), connected)
    check("refused as they came", grown("tidegate_accept_refused_total"), counted["turned away"])
    check("accepted = active + closed", grown("tidegate_connections_accepted_total"), HELD + closed)
    check("opened", grown("tidegate_connections_opened_total"), counted["opened"] + HELD)
    check("TLS handshakes", grown("tidegate_tls_handshakes_total"), counted["tls"])
    check("PROXY headers", grown("tidegate_proxy_headers_total"), counted["proxied"])
    check("messages received", grown("tidegate_messages_received_total"), counted["received"])
    check("bytes received", grown("tidegate_received_bytes_total"), counted["received bytes"])
    check("messages sent", grown("tidegate_messages_sent_total"), counted["sent"])
    check("bytes sent", grown("tidegate_sent_bytes_total"), counted["sent bytes"])
    check("messages timed on their way out", grown("tidegate_send_latency_seconds_count"), counted["sent"])
    check("published", grown("tidegate_published_total"), counted["published"])
    check("delivered", grown("tidegate_delivered_total"), counted["delivered"])
    check("durations", grown("tidegate_connection_duration_seconds_count"), counted["opened"])
    for stage in ("accept", "proxy", "tls", "head", "upgrade", "route", "address", "origin", "token", "rule", "user"):
        found = sum(value - before[name] for name, value in after.items()
                    if name.startswith(f'tidegate_refusals_total{{stage="{stage}"'))
        check(f"refused at {stage}", found, counted[f"refused at {stage}"])
    for reason in ("disconnected", "pong_timeout", "message_timeout", "write_timeout", "handler_panic"):
        name = f'tidegate_connections_closed_total{{reason="{reason}"}}'
        check(f"closed: {reason}", grown(name), counted[reason])
    check("on the way in: opened, refused or abandoned", grown("tidegate_connections_opened_total") + refused
          - counted["turned away"] + grown("tidegate_handshakes_abandoned_total"), connected)
    check("panics", grown("tidegate_handler_panics_total"), 0)
    check("bytes waiting", after["tidegate_outbox_bytes"], 0)
    for component in ("tls", "unfinished", "outboxes", "publications"):
        name = f'tidegate_memory_bytes{{component="{component}"}}'
        check(f"memory: {component}", after[name] if name in after else -1, 0)
    check("rows of the inspector", asked(place, "connections/?limit=1")["total"], HELD)
    check("the original's active connections", asked(place, "active-connections/")["active_connections"], HELD)
    print(f"descriptors {after['process_open_fds']:.0f}, resident {after['process_resident_memory_bytes'] / 1e6:.0f} MB",
          flush=True)


def after_the_end(ledger, held, daily, before, counted):
    """Those who were there at the end have been told, and the figures of days have them."""
    held.join(PATIENCE)
    ledger.check("told of the shutdown", held.told, HELD)
    # A line with a checksum, and one with the days.
    days = json.loads(daily.read_text().splitlines()[1])["days"].values()
    opened = sum(day["opened"] for day in days)
    ended = sum(day["ended"] for day in days)
    shutdown = sum(day["closed"].get("shutdown", 0) for day in days)
    ledger.check("written down of the days: opened", opened,
                 before["tidegate_connections_opened_total"] + counted["opened"] + HELD)
    ledger.check("written down of the days: ended", ended,
                 before["tidegate_connection_duration_seconds_count"] + counted["opened"] + HELD)
    ledger.check("written down of the days: ended by the shutdown", shutdown, HELD)


def asked(place, path):
    with urllib.request.urlopen(f"{place.base}/api/monitoring/websocket/{path}", timeout=PATIENCE) as answer:
        return json.load(answer)


def established(ports, expected):
    """Connections to these ports of ours, as the kernel shows them. It shows its table piece by piece, and what moves
    meanwhile may be missed: so it is asked again for a while."""
    deadline = time.monotonic() + PATIENCE
    endings = tuple(f":{port:04X}" for port in ports)
    while True:
        with open("/proc/net/tcp", encoding="ascii") as table:
            lines = [line.split() for line in list(table)[1:]]
        count = sum(words[1].endswith(endings) and words[3] == "01" for words in lines)
        if count == expected or time.monotonic() > deadline:
            return count
        time.sleep(0.5)


class Peer:
    """A client that speaks bytes."""

    def __init__(self, port, path=None, more="", source="127.0.0.1", tls=False, preface=b"", room=None):
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if room:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The port is chosen when the address to connect to is known: far more of them are free then.
        self.socket.setsockopt(socket.IPPROTO_IP, 24, 1)
        self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", port))
        self.pending = b""
        if preface:
            self.socket.sendall(preface)
        if tls:
            self.socket = TLS.wrap_socket(self.socket)
        if path:
            self.ask(path, more)
            head = self.head()
            assert head.startswith(b"HTTP/1.1 101 "), head

    def ask(self, path, more="", version=13):
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: {version}\r\n{more}\r\n"
                            .encode())

    def fill(self):
        more = self.socket.recv(1 << 18)
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
        """The next frame's first byte and payload, or None at the end. Pings are answered."""
        while True:
            found = self.whole_frame()
            if found and found[0] == 0x89:
                self.send(0x8a, found[1])
            elif found:
                return found
            elif not self.fill():
                return None

    def whole_frame(self):
        if len(self.pending) >= 2:
            start, length = 2, self.pending[1]
            if length == 126 and len(self.pending) >= 4:
                start, length = 4, struct.unpack_from("!H", self.pending, 2)[0]
            if (length != 126 or start == 4) and len(self.pending) >= start + length:
                first, payload = self.pending[0], self.pending[start:start + length]
                self.pending = self.pending[start + length:]
                return first, payload
        return None

    def drain(self):
        try:
            while self.fill():
                self.pending = b""
        except OSError:
            pass

    def leave(self):
        self.drain()
        self.socket.close()

    def leave_politely(self):
        self.send(0x88, struct.pack("!H", 1000))
        assert self.frame() == (0x88, struct.pack("!H", 1000))
        self.leave()

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Held(threading.Thread):
    """Connections that stay to the end, and answer pings meanwhile."""

    def __init__(self, place):
        super().__init__(daemon=True)
        self.peers = [Peer(place.plain, "/echo", source=f"127.0.{HOLDERS}.{number + 1}") for number in range(HELD)]
        self.told = 0
        self.start()

    def run(self):
        waiting = {peer.socket: peer for peer in self.peers}
        while waiting:
            for readable in select.select(list(waiting), [], [])[0]:
                peer = waiting[readable]
                is_over = not peer.fill()
                while found := peer.whole_frame():
                    if found[0] == 0x89:
                        peer.send(0x8a, found[1])
                    is_away = found == (0x88, struct.pack("!H", 1001) + found[1][2:])
                    self.told += is_away
                    is_over |= is_away
                if is_over:
                    del waiting[readable]
                    readable.close()


def context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


TLS = context()


def token(user, role="member"):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
    text = part({"alg": "HS256", "typ": "JWT"}) + b"." + part({"sub": user, "role": role, "exp": 4102444800})
    signature = hmac.new(SECRET.encode(), text, hashlib.sha256).digest()
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


class Client:
    """One process of clients: its choices, its addresses, its counts."""

    def __init__(self, place, seed, network):
        self.place, self.network = place, network
        self.choice = random.Random(seed)
        self.counted = collections.Counter()
        self.serial = 0

    def source(self):
        return f"127.{self.network}.{self.choice.randrange(256)}.{self.choice.randrange(1, 255)}"

    def own_address(self):
        """One that nobody else comes from."""
        self.serial += 1
        return f"127.{self.network + OWN_ALONE}.{self.serial // 250 % 250}.{self.serial % 250 + 1}"

    def name(self):
        self.serial += 1
        return f"p{self.network}n{self.serial}"

    def connected(self, port=None, **options):
        """A connection that is accepted and has said nothing."""
        peer = Peer(port or self.place.plain, source=options.pop("source", None) or self.source(), **options)
        self.counted["connected"] += 1
        self.counted["tls"] += bool(options.get("tls"))
        return peer

    def opened(self, path="/echo", more="", **options):
        """An open connection: plain, over TLS, or behind a PROXY header."""
        kind = self.choice.randrange(8) if not options else 0
        if kind == 1:
            options = {"port": self.place.tls, "tls": True}
        elif kind == 2:
            options = {"port": self.place.proxy, "source": f"127.0.{TRUSTED}.{self.choice.randrange(1, 255)}",
                       "preface": f"PROXY TCP4 {self.source()} 127.0.0.1 1 2\r\n".encode()}
            self.counted["proxied"] += 1
        peer = self.connected(path=path, more=more, **options)
        self.counted["opened"] += 1
        return peer

    def echo(self, peer, count):
        for _ in range(count):
            payload = bytes(self.choice.randrange(2000))
            peer.send(0x82, payload)
            assert peer.frame() == (0x82, payload)
            self.echoed(payload)

    def echoed(self, payload):
        self.counted.update({"received": 1, "received bytes": len(payload), "sent": 1, "sent bytes": len(payload)})

    def used(self):
        peer = self.opened()
        self.echo(peer, self.choice.randrange(4))
        return peer

    def refused(self, stage, status, path, more="", version=13, **options):
        peer = self.connected(**options)
        peer.ask(path, more, version)
        head = peer.head()
        assert head.startswith(f"HTTP/1.1 {status} ".encode()), (stage, head)
        self.counted[f"refused at {stage}"] += 1
        peer.leave()


# ---- ways to live and to end

def closes(client):
    client.used().leave_politely()


def resets(client):
    client.used().reset()


def leaves(client):
    client.used().socket.close()


def violates(client):
    peer = client.used()
    peer.socket.sendall(b"\x81\x01x")
    assert peer.frame()[1][:2] == struct.pack("!H", 1002)
    peer.leave()


def too_long(client):
    peer = client.used()
    peer.socket.sendall(b"\x82\xff" + (1 << 31).to_bytes(8) + bytes(4))
    assert peer.frame()[1][:2] == struct.pack("!H", 1009)
    peer.leave()


def half_a_frame(client):
    peer = client.used()
    peer.socket.sendall(b"\x82\x85\0\0\0\0he")
    peer.socket.close()


def fragments(client):
    peer = client.used()
    payload = bytes(client.choice.randrange(1000))
    peer.send(0x02, payload)
    peer.send(0x00, payload)
    peer.send(0x80, payload)
    assert peer.frame() == (0x82, payload * 3)
    client.echoed(payload * 3)
    peer.reset()


def pipelines(client):
    """Many messages at once, read back afterwards."""
    many(client, client.used(), 100, 500)


def slowly(client):
    """The same by somebody whose way back is narrow: replies wait, and leave later."""
    many(client, client.opened(room=16_384), 100, 2000)


def many(client, peer, count, length):
    payloads = [bytes(client.choice.randrange(length)) for _ in range(count)]
    for payload in payloads:
        peer.send(0x82, payload)
    for payload in payloads:
        assert peer.frame() == (0x82, payload)
        client.echoed(payload)
    peer.reset()


def meets(client):
    """A room: what one member says reaches all of them, on whatever reactor they are."""
    path = f"/room/{client.name()}/"
    members = [client.opened(path) for _ in range(3)]
    for member in members:
        text = json.dumps({"type": "hello", "text": "x" * client.choice.randrange(300)}).encode()
        member.send(0x81, text)
        client.counted.update({"received": 1, "received bytes": len(text), "published": 1})
        for hearer in members:
            first, heard = hearer.frame()
            assert first == 0x81 and json.loads(heard) == json.loads(text), heard
            # Of what is published, frames are counted.
            framed = len(heard) + (2 if len(heard) < 126 else 4)
            client.counted.update({"sent": 1, "sent bytes": framed, "delivered": 1})
    for member, end in zip(members, (Peer.leave_politely, Peer.reset, lambda peer: peer.socket.close())):
        end(member)


def malformed(client):
    peer = client.connected()
    peer.socket.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    assert peer.head().startswith(b"HTTP/1.1 400 ")
    client.counted["refused at head"] += 1
    peer.leave()


def endless_head(client):
    client.refused("head", 431, "/echo", f"X-Long: {'x' * 20_000}\r\n")


def wrong_version(client):
    client.refused("upgrade", 426, "/echo", version=12)


def not_found(client):
    client.refused("route", 404, f"/{client.choice.random()}")


def wrong_origin(client):
    client.refused("origin", 403, f"/members/?token={token('ann')}", "Origin: https://elsewhere.example\r\n")


def no_token(client):
    client.refused("token", 401, "/members/")


def forged(client):
    client.refused("token", 401, f"/members/?token={token('ann')[:-4]}AAAA")


def wrong_role(client):
    client.refused("rule", 403, f"/members/?token={token('ann', 'guest')}")


def too_many_of_a_user(client):
    path = f"/members/?token={token(client.name())}"
    peers = [client.opened(path) for _ in range(PER_USER)]
    client.refused("user", 429, path)
    for peer in peers:
        peer.leave_politely()


def too_many_of_an_address(client):
    address = client.own_address()
    peers = [client.opened(source=address) for _ in range(PER_ADDRESS)]
    one_more = Peer(client.place.plain, source=address)
    assert one_more.head().startswith(b"HTTP/1.1 429 ")
    one_more.leave()
    client.counted.update({"turned away": 1, "refused at accept": 1})
    for peer in peers:
        peer.reset()


def too_many_behind_a_proxy(client):
    proxy = f"127.0.{TRUSTED}.{client.choice.randrange(1, 255)}"
    more = f"X-Forwarded-For: {client.own_address()}\r\n"
    peers = [client.opened(more=more, source=proxy) for _ in range(PER_ADDRESS)]
    client.refused("address", 429, "/echo", more, source=proxy)
    for peer in peers:
        peer.socket.close()


def no_proxy_header(client):
    peer = client.connected(client.place.proxy, source=f"127.0.{TRUSTED}.{client.choice.randrange(1, 255)}")
    peer.socket.sendall(b"GET /echo HTTP/1.1\r\n")
    client.counted["refused at proxy"] += 1
    peer.leave()


def no_proxy(client):
    """Where a PROXY header is wanted, somebody who is none of the proxies."""
    Peer(client.place.proxy, source=client.source()).leave()
    client.counted.update({"turned away": 1, "refused at proxy": 1})


def no_tls(client):
    peer = client.connected(client.place.tls)
    peer.socket.sendall(b"GET /echo HTTP/1.1\r\n")
    client.counted["refused at tls"] += 1
    peer.leave()


def kicked(client):
    address = client.own_address()
    peer = client.opened(source=address)
    order = json.dumps({"filter": {"address": address}, "code": 4000, "reason": "enough"}).encode()
    deadline = time.monotonic() + PATIENCE
    while post(client.place, "disconnect/", order)["accepted"] == 0:
        # Nobody has told of it yet.
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert peer.frame()[1] == struct.pack("!H", 4000) + b"enough"
    client.counted["disconnected"] += 1
    peer.leave()


def post(place, path, body):
    request = urllib.request.Request(f"{place.base}/api/monitoring/websocket/{path}", body,
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def comes_and_goes(client):
    port = client.choice.choice([client.place.plain, client.place.tls])
    client.connected(port).socket.close()


def half_a_head(client):
    peer = client.connected()
    peer.socket.sendall(b"GET /echo HTTP/1.1\r\nHos"[:client.choice.randrange(1, 20)])
    peer.reset()


# ---- ways that take their time

def silent(client):
    peer = client.used()
    client.counted["pong_timeout"] += 1
    peer.leave()


def never_finishes(client):
    peer = client.used()
    peer.socket.sendall(b"\x82\x85\0\0\0\0he")
    client.counted["message_timeout"] += 1
    peer.leave()


def too_slow(client):
    peer = client.connected()
    peer.socket.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n")
    assert peer.head().startswith(b"HTTP/1.1 408 ")
    client.counted["refused at head"] += 1
    peer.leave()


def no_hello(client):
    peer = client.connected(client.place.tls)
    client.counted["refused at tls"] += 1
    peer.leave()


QUICK = [closes, resets, leaves, violates, too_long, half_a_frame, fragments, pipelines, slowly, meets, malformed,
         endless_head, wrong_version, not_found, wrong_origin, no_token, forged, wrong_role, too_many_of_a_user,
         no_proxy_header, no_proxy, no_tls, comes_and_goes, half_a_head]
DEAR = [too_many_of_an_address, too_many_behind_a_proxy, kicked]
LONG = [silent, never_finishes, too_slow, no_hello]


def churn(place, until, seed, network):
    """One process of clients; what it counted."""
    client = Client(place, seed, network)
    # Each of the long ways is gone at least once, by one of the processes.
    LONG[seed % len(LONG)](client)
    while time.monotonic() < until:
        chance = client.choice.random()
        client.choice.choice(LONG if chance < 0.001 else DEAR if chance < 0.05 else QUICK)(client)
    return client.counted


if __name__ == "__main__":
    harness.run(main)
