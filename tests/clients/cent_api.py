"""Centrifugo's Python client for backends, `cent` as it is published, against the server's API.

Prints one line a check, and a last line that says how many there had to be; run.py counts them.
"""
import asyncio
import json
import os
import signal
import sys

import cent
from cent import (AsyncClient, BatchRequest, BroadcastRequest, ChannelsRequest, Client, DisconnectRequest,
                  HistoryRemoveRequest, HistoryRequest, InfoRequest, PresenceRequest, PresenceStatsRequest,
                  PublishRequest, RefreshRequest, SubscribeRequest, UnsubscribeRequest)
from websockets.sync.client import connect

SUBJECT = json.loads(sys.argv[1])
URL = SUBJECT["api"] + "/api"
CHECKS = []


def check(body):
    """Registers a function as a check, named by its name."""
    CHECKS.append((body.__name__.replace("_", " "), body))
    return body


def same(actual, expected, what):
    """Fails with both values where they differ."""
    assert actual == expected, f"{what}: {actual!r:.300} instead of {expected!r:.300}"


def raises(kind, call, code=None):
    """Fails unless the call is answered with this error."""
    try:
        result = call()
    except kind as error:
        if code is not None:
            same(error.code, code, "error code")
        return
    raise AssertionError(f"{result!r:.200} instead of {kind.__name__}")


@check
def a_publication_reaches_a_subscriber_as_it_is(client):
    with connect(SUBJECT["url"] + "/broadcast", proxy=None) as ws:
        ws.send("subscribed")
        same(ws.recv(5), "subscribed", "own message")
        data = {"type": "notification", "data": {"text": "größer €", "n": [1, 2.5, None]}}
        result = client.publish(PublishRequest(channel="broadcast", data=data, tags={"a": "b"}))
        same(result.offset, 0, "offset")
        same(json.loads(ws.recv(5)), data, "publication")
        result = client.broadcast(BroadcastRequest(channels=["broadcast", "other"], data=data))
        same(len(result.responses), 2, "responses")
        same(json.loads(ws.recv(5)), data, "broadcast")


@check
def a_repetition_with_the_same_key_is_not_published(client):
    with connect(SUBJECT["url"] + "/broadcast", proxy=None) as ws:
        ws.send("subscribed")
        same(ws.recv(5), "subscribed", "own message")
        for data in (1, 2):
            client.publish(PublishRequest(channel="broadcast", data=data, idempotency_key="once"))
        client.publish(PublishRequest(channel="broadcast", data=3, idempotency_key="twice"))
        same([ws.recv(5), ws.recv(5)], ["1", "3"], "publications")


@check
def what_a_channel_does_not_keep_is_an_error(client):
    for call in (lambda: client.history(HistoryRequest(channel="a")),
                 lambda: client.history_remove(HistoryRemoveRequest(channel="a")),
                 lambda: client.presence(PresenceRequest(channel="a")),
                 lambda: client.presence_stats(PresenceStatsRequest(channel="a"))):
        raises(cent.CentApiResponseError, call, 108)


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
        same(ws.recv(5), "subscribed", "own message")
        [node] = client.info(InfoRequest()).nodes
        same((node.num_clients, node.num_subs, node.num_channels), (1, 1, 1), "node")
        assert node.uid and node.name and node.version, node
        channels = client.channels(ChannelsRequest(pattern="*")).channels
        same({name: one.num_clients for name, one in channels.items()}, {"broadcast": 1}, "channels")


@check
def a_batch_has_a_reply_for_each_command(client):
    requests = [PublishRequest(channel="a", data={"x": 1}), UnsubscribeRequest(user="nobody", channel="a"),
                BroadcastRequest(channels=["a", "b"], data=1), ChannelsRequest(), InfoRequest()]
    for parallel in (False, True):
        replies = client.batch(BatchRequest(requests=requests, parallel=parallel)).replies
        same(len(replies), len(requests), "replies")
        same(replies[0].offset, 0, "offset")
        same(len(replies[2].responses), 2, "responses")
        same(replies[3].channels, {}, "channels")
        same(len(replies[4].nodes), 1, "nodes")


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
