#!/usr/bin/env python3
"""The pictures of the dashboard in the README, made anew: a server with a month behind it, clients that do what clients
do for some minutes, and headless Chromium with a camera.

    tests/clients/pictures.py --server target/release/tidegate

Notifications, rooms, people who come and go over TLS and without, some who may not come in, and some who read too
slowly, so that every panel has something to show. Takes three minutes; writes `tuning/images/dashboard-….png`.
"""
import argparse
import asyncio
import base64
import contextlib
import datetime
import hashlib
import hmac
import json
import math
import pathlib
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))
import harness  # noqa: E402
import run as clients  # noqa: E402

SECRET = "0123456789abcdef0123456789abcdef"
CONFIG = f"""
[monitor]
listen = ["127.0.0.1:{{admin}}"]
daily_file = "{{daily}}"
requests_per_second = 500
[log]
level = "error"
[token]
secret = "{SECRET}"
[limits]
connections_max = 1000
[outbox]
bytes_high_water = "16KiB"
bytes_max = "48KiB"
[[channel]]
prefix = "room_"
slow = "drop-oldest"
[[route]]
path = "/ws/notifications/"
kind = "channels"
token = "required"
user_connections_max = 3
channels = ["notifications_{{{{user}}}}"]
[[route]]
path = "/ws/collaboration/{{{{room}}}}/"
kind = "channels"
token = "required"
rule = "role = 'member'"
origins = ["https://app.example"]
allow_absent_origin = true
channels = ["room_{{{{room}}}}"]
[[route.relay]]
when = "any"
stamp = ["user={{{{user}}}}"]
[[alert]]
name = "some_users"
value = "tidegate_users"
threshold = 350
for = "5s"
about = "More than 350 users are here: tell the team, they wanted to know."
"""
NAMES = ("ada alan anita barbara bjarne carol claude dennis donald edith edsger emmy frances grace guido hedy ivan jean "
         "john katherine ken leslie linus lynn margaret niklaus radia ray rob rosalind sophie sofia stephanie tim tony "
         "ursula vint whitfield yukihiro").split()
ROOMS = [f"{place}-{number}" for place in ("atlas", "delta", "harbour", "north") for number in range(1, 9)]
WORDS = "the tide comes in and goes out twice a day whatever anybody says about it in a meeting".split()
PEOPLE = 430
SLOW = 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_server_arguments(parser)
    parser.add_argument("--minutes", type=float, default=1.8, help="how long before the first picture (default: 1.8)")
    parser.add_argument("--to", type=pathlib.Path, default=harness.REPOSITORY / "tuning" / "images")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        python = clients.python_with(HERE / "requirements.txt", "websockets")
        return subprocess.run([python, __file__, *sys.argv[1:], "--inside"], check=False).returncode
    node, browser = clients.node_with_packages(), clients.browser()
    admin, = harness.free_ports(1)
    with tempfile.TemporaryDirectory(prefix="tidegate-pictures-") as scratch:
        daily = pathlib.Path(scratch) / "daily.json"
        daily.write_text(a_month())
        config = CONFIG.format(admin=admin, daily=daily)
        server = harness.Server(harness.templates(arguments), pathlib.Path(scratch), config, False)
        # The harness' own certificate is about to expire, which is an alert.
        harness.install(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                         "-days", "80", "-keyout", f"{scratch}/key.pem", "-out", f"{scratch}/cert.pem", "-subj", "/CN=localhost"])
        with server:
            order = json.dumps({"chromium": browser, "admin": f"http://127.0.0.1:{admin}", "to": str(arguments.to)})
            asyncio.run(Scene(server, arguments.minutes * 60).play([node, HERE / "pictures.mjs", order]))
    return 0


def a_month():
    """The file of days of a server that has been there for a month: busy on weekdays, and growing."""
    days, today, chance = {}, datetime.datetime.now(datetime.timezone.utc).date(), random.Random(7)
    for back in range(1, 30):
        date = today - datetime.timedelta(days=back)
        busy = (1.6 - back / 40) * (0.35 if date.weekday() > 4 else 1) * chance.uniform(0.9, 1.1)
        opened, peak = round(9_000 * busy), round(420 * busy)
        days[date.isoformat()] = {
            "opened": opened, "closed": {"peer_closed": round(opened * 0.8), "peer_gone": opened - round(opened * 0.8)},
            "refused": {"token: token_expired": round(210 * busy), "route: not_found": round(60 * busy)}, "peak": peak,
            "messages_received": round(41_000 * busy), "bytes_received": round(9e6 * busy),
            "messages_sent": round(190_000 * busy), "bytes_sent": round(5e7 * busy), "ended": opened,
            "duration_sum_ms": opened * 900_000, "duration_p50_ms": 400_000, "duration_p99_ms": 9_000_000,
            "quantiles_of": opened}
    body = json.dumps({"days": days, "durations": {}}, separators=(",", ":"))
    head = {"format": "tidegate daily statistics", "version": 1, "bytes": len(body),
            "sha256": hashlib.sha256(body.encode()).hexdigest()}
    return f"{json.dumps(head)}\n{body}\n"


def token(user, role="member", lifetime=36_000):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
    claims = {"sub": user, "role": role, "exp": int(time.time()) + lifetime}
    text = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(claims)
    return (text + b"." + base64.urlsafe_b64encode(hmac.new(SECRET.encode(), text, hashlib.sha256).digest())
            .rstrip(b"=")).decode()


class Scene:
    """Everybody who is there, and what they do."""

    def __init__(self, server, seconds):
        self.server, self.seconds = server, seconds
        self.chance = random.Random(11)
        self.trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.trust.check_hostname, self.trust.verify_mode = False, ssl.CERT_NONE
        self.began = time.monotonic()

    async def play(self, camera):
        tasks = [asyncio.create_task(one) for one in (
            *(self.person(number) for number in range(PEOPLE)), *(self.slow(number) for number in range(SLOW)),
            self.unwanted(), self.loud())]
        await asyncio.sleep(self.seconds)
        made = await asyncio.create_subprocess_exec(*map(str, camera))
        code = await made.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if code:
            raise harness.Unusable(f"no pictures: exit code {code}")

    def swell(self):
        """How much is being said: it comes and goes."""
        return 0.6 - 0.4 * math.cos((time.monotonic() - self.began) / 12)

    def connect(self, path, user, tls=False, **options):
        from websockets.asyncio.client import connect
        if tls:
            options["ssl"] = self.trust
        return connect(f"{self.server.url(tls)}{path}?token={token(user)}", compression=None, ping_interval=None, **options)

    async def person(self, number):
        """Somebody in a room, or waiting for news; goes now and then, and comes back."""
        user = f"{NAMES[number % len(NAMES)]}.{chr(97 + number // len(NAMES) % 26)}"
        path = f"/ws/collaboration/{ROOMS[number % len(ROOMS)]}/" if number % 4 else "/ws/notifications/"
        await asyncio.sleep(number / PEOPLE * self.seconds * 0.8)
        while True:
            with contextlib.suppress(Exception):
                async with self.connect(path, user, tls=number % 3 == 0) as client:
                    hears = asyncio.create_task(self.hear(client))
                    until = time.monotonic() + self.chance.expovariate(1 / 110)
                    while time.monotonic() < until:
                        await asyncio.sleep(self.chance.uniform(0.5, 1.5) / self.swell())
                        text = " ".join(self.chance.choices(WORDS, k=self.chance.randrange(1, 60)))
                        await client.send(json.dumps({"type": "text_change", "text": text}))
                    hears.cancel()
                    if self.chance.random() < 0.3:
                        client.transport.abort()
            await asyncio.sleep(self.chance.uniform(0.2, 3))

    @staticmethod
    async def hear(client):
        with contextlib.suppress(Exception):
            async for _ in client:
                pass

    async def loud(self):
        """A room of pictures: large messages, many a second."""
        while True:
            with contextlib.suppress(Exception):
                async with self.connect("/ws/collaboration/charts/", "charts.bot", tls=True) as client:
                    while True:
                        await client.send(json.dumps({"type": "chart", "data": "x" * self.chance.randrange(1_500, 6_000)}))
                        await asyncio.sleep(self.chance.uniform(0.02, 0.05))

    async def slow(self, number):
        """A member of that room whose line is too narrow for it."""
        loop, bytes_per_second = asyncio.get_running_loop(), 60_000 + 15_000 * number
        while True:
            await asyncio.sleep(self.chance.uniform(0, 10))
            with contextlib.suppress(Exception):
                line = socket.socket()
                line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                line.setblocking(False)
                await loop.sock_connect(line, ("127.0.0.1", self.server.plain_port))
                user = f"{NAMES[-1 - number]}.mobile"
                await loop.sock_sendall(line, (
                    f"GET /ws/collaboration/charts/?token={token(user)} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
                ).encode())
                with line:
                    until = time.monotonic() + self.chance.uniform(60, 120)
                    while time.monotonic() < until:
                        # It reads too little to be pinged and killed for it: its silence is told to nobody.
                        some = await loop.sock_recv(line, 2_048)
                        if not some:
                            break
                        if time.monotonic() % 5 < 0.1:
                            # An unasked pong: it lives.
                            await loop.sock_sendall(line, b"\x8a\x80\0\0\0\0")
                        await asyncio.sleep(len(some) / bytes_per_second)

    async def unwanted(self):
        """Those who do not get in: an old token, no token, a wrong page, a wrong path, a tab too many, a guest."""
        while True:
            user = f"{self.chance.choice(NAMES)}.z"
            for path, more in self.chance.sample([
                    ("/ws/notifications/?token=" + token(user, lifetime=-600), {}),
                    ("/ws/notifications/?token=" + token(user, lifetime=-600), {}),
                    ("/ws/notifications/", {}), ("/ws/chat/", {}),
                    ("/ws/collaboration/atlas-1/?token=" + token(user), {"origin": "https://elsewhere.example"}),
                    ("/ws/collaboration/atlas-1/?token=" + token(user, role="guest"), {})], 3):
                from websockets.asyncio.client import connect
                with contextlib.suppress(Exception):
                    async with connect(self.server.url(False) + path, compression=None, **more):
                        pass
                await asyncio.sleep(self.chance.uniform(0.3, 1.2))
            with contextlib.suppress(Exception):
                line = socket.create_connection(("127.0.0.1", self.chance.choice(
                    [self.server.plain_port, self.server.tls_port])), 5)
                line.close()


if __name__ == "__main__":
    harness.run(main)
