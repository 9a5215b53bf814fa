"""A peer on Django Channels, with the in-memory layer and a token in the query as the stack that tidegate replaces has
them: /broadcast sends every message to all clients of the route, /echo back to its sender. For uvicorn or daphne.

A connection without a token is let in as nobody: the other peers ask for none either.
"""
from urllib.parse import parse_qs

import django
from django.conf import settings

settings.configure(ALLOWED_HOSTS=["*"], DEBUG=False, INSTALLED_APPS=["channels"], SECRET_KEY="of a bench, nobody's",
                   CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}})
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402


class TokenMiddleware:
    """Looks for a token, as the original's outermost layer does."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        query = parse_qs(scope["query_string"].decode())
        return await self.inner(dict(scope, token=query.get("token", [None])[0]), receive, send)


class Broadcast(AsyncWebsocketConsumer):
    """A group of everybody on the route."""

    async def connect(self):
        await self.channel_layer.group_add("everybody", self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard("everybody", self.channel_name)

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("everybody", {"type": "relay", "text": text_data, "bytes": bytes_data})

    async def relay(self, event):
        """A message of the group."""
        await self.send(text_data=event["text"], bytes_data=event["bytes"])


class Echo(AsyncWebsocketConsumer):
    """Each message back to its sender."""

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data, bytes_data=bytes_data)


ROUTES = URLRouter([path("broadcast", Broadcast.as_asgi()), path("echo", Echo.as_asgi())])
application = ProtocolTypeRouter({"websocket": TokenMiddleware(ROUTES)})
