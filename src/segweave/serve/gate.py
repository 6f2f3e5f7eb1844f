"""What every request passes first: the token, the names by which a browser may call, the size."""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from segweave.serve.limits import Limits, RefusedError
from segweave.serve.messages import where
from segweave.serve.uploads import too_large

LOG = logging.getLogger("segweave.serve")
_OPEN = ("/", "/docs", "/health")
_FILES = "/static/"
_FORM = 1 << 21  # bytes that a form may have beside its files
_PER_FILE = 1 << 10
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gate:
    """An ASGI application around another one.

    With a token, everything but the page with its files, the documentation and `/health` asks for
    it. Without one
    only requests that name a loopback address are answered, so that no web page reaches the service
    by a name that it resolves to 127.0.0.1. Requests that a browser sends for another site's page
    are refused. What is unexpected is logged without its text, which may quote a file.
    """

    def __init__(self, application: Application, limits: Limits, token: str | None) -> None:
        self._application = application
        self._limits = limits
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        counted = 0
        most = self._limits.bytes + _FORM + _PER_FILE * self._limits.files

        async def limited() -> Message:
            nonlocal counted
            message = await receive()
            counted += len(message.get("body", b""))
            if counted > most:
                raise too_large(self._limits)
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            self._check(scope)
        except RefusedError as error:
            await _answer(error, with_headers)
            return
        try:
            await self._application(scope, limited, with_headers)
        except Exception as error:
            if type(error).__name__ == "ClientDisconnect":
                return
            LOG.error("unexpected %s", where(error))

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin")
        doing = "answering a request"
        if self._token is None and not is_loopback(_name_of(host)):
            raise RefusedError(
                421,
                doing,
                expected="a request to 127.0.0.1 or localhost, as there is no token",
                found="another name in the header Host",
            )
        if origin is not None and origin.decode("latin-1").partition("://")[2] != host:
            raise RefusedError(
                403, doing, expected="a request of the service's page", found="another site's"
            )
        if not scope.get("query_string", b"").isascii():
            raise RefusedError(
                400, doing, expected="an address in ASCII, other bytes as %XX", found="other bytes"
            )
        path: str = scope["path"]
        if self._token is None or path in _OPEN or path.startswith(_FILES):
            return
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
            raise RefusedError(
                401,
                doing,
                expected="the header Authorization: Bearer TOKEN",
                found="another token" if given else "no token",
                remedy="give --token-file to `segweave predict --server`",
            )


def _name_of(host: str) -> str:
    """The name or address in a header Host, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def is_loopback(name: str) -> bool:
    """Whether a name or an address is this machine's, whatever a name server says."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def error_body(status: int, text: str) -> dict[str, Any]:
    """What an error is answered with."""
    return {"status": status, "message": text}


async def _answer(error: RefusedError, send: Send) -> None:
    body = json.dumps(error_body(error.status, str(error))).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
