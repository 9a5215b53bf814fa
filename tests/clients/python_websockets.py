"""Python's `websockets` as a client, with or without permessage-deflate.

Prints one line a check, and a last line that says how many there had to be; run.py counts them.
"""
import asyncio
import json
import os
import signal
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

SUBJECT = json.loads(sys.argv[1])
SIZES = (0, 1, 125, 126, 65535, 65536)
# One to four octets a character, U+0000, a byte order mark, the last code point.
UNICODE = "a\0é€\ufeff𝄞\U0010ffffκόσμε 日本語 👩‍🚀"
CHECK_SECONDS_MAX = 30
CHECKS = []


def check(body):
    """Registers a coroutine as a check, named by its name."""
    CHECKS.append((body.__name__.replace("_", " "), body))
    return body


def client(path="/echo", **options):
    """A connection to the server under test, as an async context manager."""
    tls = None
    if SUBJECT["url"].startswith("wss:"):
        tls = ssl.create_default_context(cafile=SUBJECT["ca"])
    return connect(SUBJECT["url"] + path, ssl=tls, compression="deflate" if SUBJECT["deflate"] else None,
                   max_size=None, ping_interval=None, proxy=None, open_timeout=CHECK_SECONDS_MAX, close_timeout=CHECK_SECONDS_MAX, **options)


def same(actual, expected, what):
    """Fails with both values where they differ."""
    assert actual == expected, f"{what}: {actual!r:.200} instead of {expected!r:.200}"


def text_of(size):
    """Text of exactly `size` octets in UTF-8."""
    return "€" * (size // 3) + "x" * (size % 3)


def bytes_of(size):
    """Octets without a short period."""
    return bytes((i * 31 + (i >> 8) * 17) & 0xFF for i in range(size))


async def echo(ws, message, pieces=None, text=None):
    """Sends one message, whole or in these pieces, and checks its echo."""
    await ws.send(message if pieces is None else pieces, text=text)
    same(await ws.recv(), message, "echo")


async def closes_only_offender(offend, code):
    """A second client is open while the first one breaks a rule, and goes on afterwards."""
    async with client() as bystander, client() as offender:
        await echo(bystander, "before")
        try:
            await offend(offender)
            await offender.recv()
        except ConnectionClosed:
            pass
        await offender.wait_closed()
        same(offender.close_code, code, "close code")
        await echo(bystander, "after")


@check
async def permessage_deflate_is_negotiated_only_where_both_want_it():
    async with client() as ws:
        same([extension.name for extension in ws.protocol.extensions],
             ["permessage-deflate"] if SUBJECT["deflate"] and SUBJECT["compression"] else [], "extensions")


for _size in SIZES:
    async def _echoes(size=_size):
        async with client() as ws:
            await echo(ws, bytes_of(size))
            await echo(ws, text_of(size))
    CHECKS.append((f"echoes {_size} octets of binary and of text", _echoes))


@check
async def echoes_text_of_every_width():
    async with client() as ws:
        await echo(ws, UNICODE)


@check
async def echoes_a_message_sent_in_fragments_cut_inside_a_character():
    async with client() as ws:
        octets = UNICODE.encode()
        await echo(ws, UNICODE, [octets[i:i + 1] for i in range(len(octets))], text=True)
        whole = bytes_of(60_000)
        await echo(ws, whole, [whole[:125], b"", whole[125:]])


@check
async def answers_pings_with_their_payload():
    async with client() as ws:
        for size in (0, 1, 125):
            payload = bytes_of(size)
            # Fulfilled only by a pong with this very payload.
            await (await ws.ping(payload))


@check
async def answers_a_ping_between_two_fragments_and_ignores_a_pong():
    async with client() as ws:
        async def pieces():
            yield "one "
            await ws.pong(b"unasked")
            await (await ws.ping(b"between"))
            yield "two"
        await ws.send(pieces())
        same(await ws.recv(), "one two", "echo")


@check
async def echoes_many_messages_in_flight_in_order():
    async with client() as ws:
        sent = [text_of(i * 37 % 4000) + str(i) for i in range(500)]

        async def receive():
            return [await ws.recv() for _ in sent]
        receiving = asyncio.ensure_future(receive())
        for message in sent:
            await ws.send(message)
        same(await receiving, sent, "echoes")


@check
async def broadcasts_to_three_clients_the_sender_too_in_order():
    each = 40
    async with client("/broadcast") as a, client("/broadcast") as b, client("/broadcast") as c:
        async def send(ws, name):
            for number in range(each):
                message = f"{name}:{number}"
                await ws.send(message.encode() if number % 2 else message)

        async def receive(ws):
            return [await ws.recv() for _ in range(3 * each)]
        *received, _, _, _ = await asyncio.gather(
            receive(a), receive(b), receive(c), send(a, "a"), send(b, "b"), send(c, "c"))
        for seen in received:
            for name in "abc":
                expected = [f"{name}:{i}".encode() if i % 2 else f"{name}:{i}" for i in range(each)]
                own = [m for m in seen if (m if isinstance(m, str) else m.decode()).startswith(f"{name}:")]
                same(own, expected, f"messages of {name}")


for _code in (1000, 3000, 4999):
    async def _closes(code=_code):
        async with client() as ws:
            await ws.close(code, "bye é")
            same(ws.close_code, code, "close code")
    CHECKS.append((f"echoes close code {_code}", _closes))


@check
async def a_message_of_one_octet_over_the_limit_closes_with_1009_others_stay():
    await closes_only_offender(lambda ws: ws.send(bytes_of(SUBJECT["limit"] + 1)), 1009)


@check
async def fragments_that_add_up_to_one_octet_over_the_limit_close_with_1009_others_stay():
    await closes_only_offender(lambda ws: ws.send([bytes_of(SUBJECT["limit"] - 1), bytes_of(2)]), 1009)


@check
async def text_that_is_not_utf8_closes_with_1007_others_stay():
    await closes_only_offender(lambda ws: ws.send(b"a\xff", text=True), 1007)


@check
async def opens_without_a_subprotocol_where_none_of_those_offered_is_known():
    async with client(subprotocols=["unknown.v1", "unknown.v2"]) as ws:
        same(ws.subprotocol, None, "subprotocol")
        await echo(ws, "open all the same")


@check
async def sigterm_closes_every_connection_with_1001():
    async with client() as one, client() as two, client("/broadcast") as three:
        await echo(one, "still here")
        os.kill(SUBJECT["pid"], signal.SIGTERM)
        for ws in (one, two, three):
            await ws.wait_closed()
            same(ws.close_code, 1001, "close code")


async def main():
    for name, body in CHECKS:
        try:
            await asyncio.wait_for(body(), CHECK_SECONDS_MAX)
            print(f"ok {name}", flush=True)
        except (Exception, asyncio.CancelledError) as error:  # any failure is the check's, and is reported
            print(f"not ok {name}: {type(error).__name__}: {error}".replace("\n", " | "), flush=True)
    print(f"1..{len(CHECKS)}")


asyncio.run(main())
