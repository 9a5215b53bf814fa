"""A Django project whose views answer hooks, and a client that meets them: the original system's notifications
and projects, with `claims` of real tokens.

The views verify signatures with the reference library of Standard Webhooks, and by hand as the README shows. The client
is Python's `websockets`. Prints one line a check, and a last line that says how many there had to be; run_hooks.py
counts them.
"""
import base64
import hashlib
import hmac
import json
import sys
import threading
import time
import urllib.error
import urllib.request

import django
from django.conf import settings
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseForbidden, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SUBJECT = json.loads(sys.argv[1])
SECONDS_MAX = 20

# What the backend knows: the unread notifications of users, and who may see which project.
UNREAD = {"42": [{"id": 7, "text": "seven"}, {"id": 8, "text": "eight"}]}
MEMBERS = {"7": {"42"}}
SEEN = []


def is_from_tidegate(headers, body, secret):
    """The README's four lines."""
    ident, sent = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(time.time() - int(sent)) > 300:
        return False
    signed = f"{ident}.{sent}.".encode() + body
    expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(headers["webhook-signature"], f"v1,{expected}")


def hook(view):
    """A view of a verified event."""
    @csrf_exempt
    def verified(request):
        secret = SUBJECT["secret"]
        try:
            event = Webhook(secret).verify(request.body, dict(request.headers.items()))
        except WebhookVerificationError:
            SEEN.append("forged")
            return HttpResponseForbidden()
        by_hand = is_from_tidegate(request.headers, request.body, base64.b64decode(secret.removeprefix("whsec_")))
        assert by_hand, "the README's lines disagree with the library"
        SEEN.append(event["event"])
        answer = view(event)
        return HttpResponse(status=204) if answer is None else JsonResponse(answer)
    return verified


@hook
def notifications(event):
    """`/ws/notifications/`: the unread ones on open, then `mark_read` and `get_notifications`."""
    user = event["user"]
    unread = lambda: {"type": "notifications_list", "data": UNREAD.get(user, [])[:10]}  # noqa: E731
    if event["event"] == "open":
        return {"reply": [unread()]}
    if event["event"] == "message":
        action = event.get("data", {}).get("action")
        if action == "mark_read":
            read = event["data"]["notification_id"]
            UNREAD[user] = [one for one in UNREAD[user] if one["id"] != read]
            return {"reply": [{"type": "marked_read", "notification_id": read}]}
        if action == "get_notifications":
            return {"reply": [unread()]}
        return {"reply": [{"type": "error", "message": "unknown action"}]}
    return None


@hook
def projects(event):
    """`/ws/projects/{project_id}/`: members and administrators; an update is broadcast."""
    project = event["parameters"]["project_id"]
    if event["event"] == "authorise":
        return {"allow": event["user"] in MEMBERS.get(project, ()) or event["claims"].get("role") == "Admin"}
    if event["event"] == "open":
        return {"reply": [{"type": "project_status", "data": {"project": project}}]}
    if event["event"] == "message" and event["data"]["action"] == "update_milestone":
        update = {"type": "project_update", "data": {"milestone": event["data"]["milestone"], "by": event["user"]}}
        return {"publish": [{"channel": f"project_{project}", "data": update}]}
    return None


urlpatterns = [path("hooks/notifications/", notifications), path("hooks/projects/", projects)]


class Quiet(WSGIRequestHandler):
    """Keeps connections, and says nothing about them."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass


def serve():
    settings.configure(DEBUG=False, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="of this run",
                       LOGGING_CONFIG=None)
    django.setup()
    server = ThreadedWSGIServer(("127.0.0.1", SUBJECT["backend_port"]), Quiet)
    server.daemon_threads = True
    server.set_app(get_wsgi_application())
    threading.Thread(target=server.serve_forever, daemon=True).start()


CHECKS = []


def check(body):
    """Registers a function as a check, named by its name."""
    CHECKS.append((body.__name__.replace("_", " "), body))
    return body


def client(path, user):
    """A connection of a user, by the token that was made for them."""
    return connect(f"{SUBJECT['url']}{path}?token={SUBJECT['tokens'][user]}", proxy=None, open_timeout=SECONDS_MAX)


def receive(ws):
    return json.loads(ws.recv(timeout=SECONDS_MAX))


def same(actual, expected):
    assert actual == expected, f"{actual!r} instead of {expected!r}"


def closes_with(ws, code):
    try:
        got = ws.recv(timeout=SECONDS_MAX)
    except ConnectionClosed as closed:
        same(closed.rcvd.code, code)
    else:
        raise AssertionError(f"{got!r} instead of a close")


@check
def the_unread_notifications_come_on_open_and_can_be_marked_read():
    with client("/ws/notifications/", "42") as ws:
        seven, eight = {"id": 7, "text": "seven"}, {"id": 8, "text": "eight"}
        same(receive(ws), {"type": "notifications_list", "data": [seven, eight]})
        ws.send(json.dumps({"action": "mark_read", "notification_id": 7}))
        same(receive(ws), {"type": "marked_read", "notification_id": 7})
        ws.send(json.dumps({"action": "get_notifications"}))
        same(receive(ws), {"type": "notifications_list", "data": [eight]})
        ws.send(json.dumps({"action": "dance"}))
        same(receive(ws), {"type": "error", "message": "unknown action"})


@check
def members_and_administrators_enter_a_project_and_others_are_told_4403():
    for user in ("42", "1"):
        with client("/ws/projects/7/", user) as ws:
            same(receive(ws), {"type": "project_status", "data": {"project": "7"}})
    with client("/ws/projects/7/", "5") as ws:
        closes_with(ws, 4403)
    with client("/ws/projects/8/", "42") as ws:
        closes_with(ws, 4403)


@check
def an_update_reaches_everybody_in_the_project():
    with client("/ws/projects/7/", "42") as one, client("/ws/projects/7/", "1") as other:
        receive(one), receive(other)
        one.send(json.dumps({"action": "update_milestone", "milestone": "M2"}))
        for ws in (one, other):
            same(receive(ws), {"type": "project_update", "data": {"milestone": "M2", "by": "42"}})


@check
def the_view_was_told_of_the_ends_and_nothing_was_forged():
    # Four entered projects, where the view hears of the ends.
    deadline = time.monotonic() + SECONDS_MAX
    while SEEN.count("close") < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    same(SEEN.count("close"), 4)
    same(SEEN.count("open"), 5)
    assert "forged" not in SEEN, SEEN


@check
def what_tidegate_did_not_sign_is_refused_by_the_view():
    body = b'{"event":"open","user":"42","id":"x"}'
    headers = {"webhook-id": "x", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,AAAA"}
    url = f"http://127.0.0.1:{SUBJECT['backend_port']}/hooks/notifications/"
    try:
        urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=SECONDS_MAX)
    except urllib.error.HTTPError as error:
        same(error.code, 403)
    else:
        raise AssertionError("it was taken")


@check
def the_calls_are_in_the_metrics():
    url = f"http://127.0.0.1:{SUBJECT['monitor_port']}/metrics"
    wanted = ('tidegate_hook_calls_total{event="authorise",outcome="answered"} 6',
              'tidegate_hook_calls_total{event="message",outcome="answered"} 4',
              'tidegate_hook_calls_total{event="open",outcome="timeout"} 0', "tidegate_hook_breakers_open 0")
    # Figures are gathered once a second.
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        with urllib.request.urlopen(url, timeout=SECONDS_MAX) as answer:
            lines = answer.read().decode().splitlines()
        missing = [line for line in wanted if line not in lines]
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    same(missing, [])


def main():
    serve()
    print(f"1..{len(CHECKS)}")
    for name, body in CHECKS:
        try:
            body()
            print(f"ok {name}", flush=True)
        except Exception as error:  # noqa: BLE001: whatever goes wrong is the check's
            print(f"not ok {name}: {type(error).__name__}: {error}", flush=True)


main()
