"""Centrifugo's Python client for backends, `cent` as it is published, against the server's API: every method of it that
the server has, with members who read what comes of it.

Prints one line a check, and a last line that says how many there had to be; run.py counts them.
"""
import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import signal
import sys
import time

import cent
from cent import (AsyncClient, BatchRequest, BroadcastRequest, ChannelsRequest, Client, DisconnectRequest,
                  HistoryRemoveRequest, HistoryRequest, InfoRequest, PresenceRequest, PresenceStatsRequest,
                  PublishRequest, RefreshRequest, StreamPosition, SubscribeRequest, UnsubscribeRequest)
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SUBJECT = json.loads(sys.argv[1])
URL = SUBJECT["api"] + "/api"
CHECKS = []
SECONDS_MAX = 20


def check(body):
    """Registers a function as a check, named by its name."""
    CHECKS.append((body.__name__.replace("_", " "), body))
    return body


def same(actual, expected, what):
    """Fails with both values where they differ."""
    assert actual == expected, f"{what}: {actual!r:.300} instead of {expected!r:.300}"


def channels_of(client):
    """The channels there are, and how many are on each."""
    channels = client.channels(ChannelsRequest(pattern="*")).channels
    return {name: one.num_clients for name, one in channels.items()}


def raises(kind, call, code=None):
    """Fails unless the call is answered with this error."""
    try:
        result = call()
    except kind as error:
        if code is not None:
            same(error.code, code, "error code")
        return
    raise AssertionError(f"{result!r:.200} instead of {kind.__name__}")


def token(user):
    """A token of this user's, as a backend makes it."""
    def encoded(part):
        return base64.urlsafe_b64encode(part).rstrip(b"=")
    claims = {"user_id": user, "token_type": "access", "exp": int(time.time()) + 600, "jti": f"of {user}"}
    message = b".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    signature = hmac.new(SUBJECT["secret"].encode(), message, hashlib.sha256).digest()
    return (message + b"." + encoded(signature)).decode()


@contextlib.contextmanager
def members(client, room, *users):
    """Connections of these users in the channel `kept:ROOM`, which knows that they are there."""
    channel = f"kept:{room}"
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(f"{SUBJECT['url']}/ws/{room}/?token={token(user)}", proxy=None))
                   for user in users]
        reaches(lambda: client.presence_stats(PresenceStatsRequest(channel=channel)).num_clients, len(users), "members")
        yield (channel, *sockets)
    reaches(lambda: client.presence_stats(PresenceStatsRequest(channel=channel)).num_clients, 0, "members at the end")


def reaches(figure, expected, what):
    """Waits until a figure is what it should become."""
    deadline = time.monotonic() + SECONDS_MAX
    while (actual := figure()) != expected:
        assert time.monotonic() < deadline, f"{what}: still {actual!r:.300} instead of {expected!r:.300}"
        time.sleep(0.01)


def close_code(socket):
    """Reads to the end; the code that the server closes with."""
    try:
        while True:
            socket.recv(SECONDS_MAX)
    except ConnectionClosed as closed:
        return closed.rcvd and closed.rcvd.code


@check
def a_publication_reaches_a_subscriber_as_it_is(client):
    with connect(SUBJECT["url"] + "/broadcast", proxy=None) as ws:
        ws.send("subscribed")
        same(ws.recv(SECONDS_MAX), "subscribed", "own message")
        data = {"type": "notification", "data": {"text": "größer €", "n": [1, 2.5, None]}}
        result = client.publish(PublishRequest(channel="broadcast", data=data, tags={"a": "b"}))
        same(result.offset, 0, "offset")
        same(json.loads(ws.recv(SECONDS_MAX)), data, "publication")
        result = client.broadcast(BroadcastRequest(channels=["broadcast", "other"], data=data))
        same(len(result.responses), 2, "responses")
        same(json.loads(ws.recv(SECONDS_MAX)), data, "broadcast")


@check
def a_repetition_with_the_same_key_is_not_published(client):
    with connect(SUBJECT["url"] + "/broadcast", proxy=None) as ws:
        ws.send("subscribed")
        same(ws.recv(SECONDS_MAX), "subscribed", "own message")
        for data in (1, 2):
            client.publish(PublishRequest(channel="broadcast", data=data, idempotency_key="once"))
        client.publish(PublishRequest(channel="broadcast", data=3, idempotency_key="twice"))
        same([ws.recv(SECONDS_MAX), ws.recv(SECONDS_MAX)], ["1", "3"], "publications")


@check
def what_a_channel_does_not_keep_is_an_error(client):
    for call in (lambda: client.history(HistoryRequest(channel="a")),
                 lambda: client.history_remove(HistoryRemoveRequest(channel="a")),
                 lambda: client.presence(PresenceRequest(channel="a")),
                 lambda: client.presence_stats(PresenceStatsRequest(channel="a"))):
        raises(cent.CentApiResponseError, call, 108)


@check
def a_history_is_what_members_were_told(client):
    with members(client, "history", "ann") as (channel, ann):
        positions = [client.publish(PublishRequest(channel=channel, data={"n": n}, tags={"n": str(n)}))
                     for n in range(1, 8)]
        same([one.offset for one in positions], list(range(1, 8)), "offsets")
        [epoch] = {one.epoch for one in positions}
        same([json.loads(ann.recv(SECONDS_MAX))["n"] for _ in range(7)], list(range(1, 8)), "publications")

        def history(**wishes):
            result = client.history(HistoryRequest(channel=channel, **wishes))
            same((result.offset, result.epoch), (7, epoch), "top")
            for one in result.publications:
                same((one.data, one.tags), ({"n": one.offset}, {"n": str(one.offset)}), "publication")
            return [one.offset for one in result.publications]

        # The channel keeps five.
        same(history(), [], "no limit given")
        same(history(limit=-1), [3, 4, 5, 6, 7], "all")
        same(history(limit=2), [3, 4], "the oldest")
        same(history(limit=2, reverse=True), [7, 6], "the newest")
        same(history(limit=-1, since=StreamPosition(offset=5, epoch=epoch)), [6, 7], "since the fifth")
        raises(cent.CentApiResponseError, lambda: history(limit=1, since=StreamPosition(offset=5, epoch="other")), 112)
        client.history_remove(HistoryRemoveRequest(channel=channel))
        same(history(limit=-1), [], "after its removal")
        same(client.publish(PublishRequest(channel=channel, data=8)).offset, 8, "the next offset")
        skipped = client.publish(PublishRequest(channel=channel, data=9, skip_history=True))
        same(skipped.offset, 0, "offset of what is not kept")
        same([ann.recv(SECONDS_MAX), ann.recv(SECONDS_MAX)], ["8", "9"], "publications")


@check
def presence_says_who_is_there(client):
    with members(client, "presence", "ann", "ann", "bob") as (channel, *sockets):
        present = client.presence(PresenceRequest(channel=channel)).presence
        same(sorted(one.user for one in present.values()), ["ann", "ann", "bob"], "users")
        same([name for name, one in present.items() if one.client != name], [], "names that are no clients")
        stats = client.presence_stats(PresenceStatsRequest(channel=channel))
        same((stats.num_clients, stats.num_users), (3, 2), "stats")
        sockets[2].close()
        reaches(lambda: sorted(one.user for one in client.presence(PresenceRequest(channel=channel)).presence.values()),
                ["ann", "ann"], "users who stay")
        client.disconnect(DisconnectRequest(user="ann"))
        same([close_code(socket) for socket in sockets[:2]], [3503, 3503], "close codes")


@check
def a_user_is_subscribed_and_unsubscribed(client):
    with members(client, "one", "ann") as (_, ann), members(client, "two", "bob") as (channel, bob):
        client.subscribe(SubscribeRequest(user="ann", channel=channel))
        reaches(lambda: client.presence_stats(PresenceStatsRequest(channel=channel)).num_users, 2, "members")
        client.publish(PublishRequest(channel=channel, data="to both"))
        same([ann.recv(SECONDS_MAX), bob.recv(SECONDS_MAX)], ['"to both"'] * 2, "publications")
        channels = client.channels(ChannelsRequest(pattern="kept:*")).channels
        same({name: one.num_clients for name, one in channels.items()}, {"kept:one": 1, channel: 2}, "channels")
        client.unsubscribe(UnsubscribeRequest(user="ann", channel=channel))
        client.publish(PublishRequest(channel=channel, data="to bob"))
        client.publish(PublishRequest(channel="kept:one", data="to ann"))
        same([ann.recv(SECONDS_MAX), bob.recv(SECONDS_MAX)], ['"to ann"', '"to bob"'], "publications")


@check
def connections_are_ended_by_name_and_by_code(client):
    with members(client, "end", "ann", "ann") as (channel, first, second):
        names = list(client.presence(PresenceRequest(channel=channel)).presence)
        client.disconnect(DisconnectRequest(user="ann", whitelist=names))
        client.disconnect(DisconnectRequest(user="ann", client=names[0],
                                            disconnect=cent.Disconnect(code=4000, reason="enough")))
        reaches(lambda: list(client.presence(PresenceRequest(channel=channel)).presence), names[1:], "who is left")
        client.refresh(RefreshRequest(user="ann", client=names[1], expired=True))
        same(sorted(map(close_code, (first, second))), [4000, 4401], "close codes")


@check
def a_user_who_is_not_there_is_no_error(client):
    client.subscribe(SubscribeRequest(user="nobody", channel="a"))
    client.unsubscribe(UnsubscribeRequest(user="nobody", channel="a"))
    client.disconnect(DisconnectRequest(user="nobody"))
    client.refresh(RefreshRequest(user="nobody"))


@check
def the_server_says_what_it_is(client):
    with connect(SUBJECT["url"] + "/broadcast", proxy=None) as ws:
        ws.send("subscribed")
        same(ws.recv(SECONDS_MAX), "subscribed", "own message")

        def numbers():
            [node] = client.info(InfoRequest()).nodes
            assert node.uid and node.name and node.version, node
            return node.num_clients, node.num_subs, node.num_channels

        # Connections of other checks may still be on their way out.
        reaches(numbers, (1, 1, 1), "node")
        reaches(lambda: channels_of(client), {"broadcast": 1}, "channels")


@check
def a_batch_has_a_reply_for_each_command(client):
    requests = [PublishRequest(channel="a", data={"x": 1}), UnsubscribeRequest(user="nobody", channel="a"),
                BroadcastRequest(channels=["a", "b"], data=1), ChannelsRequest(), InfoRequest()]
    reaches(lambda: channels_of(client), {}, "channels of others")
    for parallel in (False, True):
        replies = client.batch(BatchRequest(requests=requests, parallel=parallel)).replies
        same(len(replies), len(requests), "replies")
        same(replies[0].offset, 0, "offset")
        same(len(replies[2].responses), 2, "responses")
        same(replies[3].channels, {}, "channels")
        same(len(replies[4].nodes), 1, "nodes")


@check
def a_batch_of_every_method_is_done_in_order(client):
    with members(client, "batch", "ann", "bob") as (channel, ann, bob):
        requests = [PublishRequest(channel=channel, data=1), BroadcastRequest(channels=[channel, "kept:other"], data=2),
                    HistoryRequest(channel=channel, limit=-1), PresenceRequest(channel=channel),
                    PresenceStatsRequest(channel=channel), HistoryRemoveRequest(channel=channel),
                    HistoryRequest(channel=channel, limit=-1), UnsubscribeRequest(user="ann", channel=channel),
                    SubscribeRequest(user="ann", channel="kept:other"), PublishRequest(channel="kept:other", data=3),
                    DisconnectRequest(user="bob"), RefreshRequest(user="nobody", expired=True)]
        replies = client.batch(BatchRequest(requests=requests)).replies
        same(len(replies), len(requests), "replies")
        same([one.data for one in replies[2].publications], [1, 2], "history")
        same(sorted(one.user for one in replies[3].presence.values()), ["ann", "bob"], "presence")
        same((replies[4].num_clients, replies[4].num_users), (2, 2), "stats")
        same((replies[6].publications, replies[6].offset), ([], 2), "history after its removal")
        same([ann.recv(SECONDS_MAX) for _ in range(3)], ["1", "2", "3"], "what ann reads")
        same(([bob.recv(SECONDS_MAX) for _ in range(2)], close_code(bob)), (["1", "2"], 3503), "what bob reads")


@check
def errors_are_those_of_the_reference(client):
    raises(cent.CentApiResponseError, lambda: client.publish(PublishRequest(channel="", data=1)), 107)
    raises(cent.CentApiResponseError, lambda: client.publish(PublishRequest(channel="no blanks", data=1)), 107)
    raises(cent.CentTransportError, lambda: client.connections(cent.ConnectionsRequest(user="u", expression="")))
    stranger = Client(URL, "wrong key")
    raises(cent.CentUnauthorizedError, lambda: stranger.info(InfoRequest()))
    stranger.close()


@check
def the_asynchronous_client_works_too(_):
    async def talk():
        async with AsyncClient(URL, SUBJECT["key"]) as client:
            publish = PublishRequest(channel="a", data={"x": 1}, idempotency_key="asynchronous")
            results = await asyncio.gather(*(client.publish(publish) for _ in range(50)))
            return len(results)
    same(asyncio.run(talk()), 50, "answers")


def main():
    client = Client(URL, SUBJECT["key"])
    for name, body in CHECKS:
        try:
            body(client)
            print(f"ok {name}", flush=True)
        except Exception as error:  # whatever it is, it is this check's failure
            print(f"not ok {name}: {type(error).__name__}: {error}", flush=True)
    client.close()
    os.kill(SUBJECT["pid"], signal.SIGTERM)
    print(f"1..{len(CHECKS)}", flush=True)


main()
