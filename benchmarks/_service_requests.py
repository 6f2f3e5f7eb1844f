"""Malformed requests to the application of the service, in this process: through ASGI, without a
network. Some come from schemathesis, which reads the service's own OpenAPI; most are mutations of
requests that are right.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "get", "X" * 30)
_TEXTS = (
    "", "0", "-1", "1e400", "nan", "NaN", "true", "null", "[]", "{}", "../../etc/passwd", "%00",
    "\0", "\x7f", "é", "漢字", "a" * 5000, "'; drop table jobs; --", "${jndi:x}", "1" * 400, "%",
    "..", ".", "/", "//", "\\", "\r\nX: y", "\ud800",
)  # fmt: skip
_TYPES = (
    "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x",
    "multipart/form-data; boundary=\"a b\"; charset=utf-99", "application/json", "text/plain", "",
    "multipart/form-data; boundary=" + "x" * 4000, "multipart/mixed; boundary=x", "a/b; c=\xff",
    "application/x-www-form-urlencoded",
)  # fmt: skip
_FIELDS = ("files", "model", "geometry", "format", "probabilities", "x", "", "files[]", "\0")


class Request(NamedTuple):
    """One request as ASGI has it."""

    method: str
    path: str
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ((b"host", b"127.0.0.1"),)
    body: bytes = b""


@dataclass
class Answers:
    """What the requests were answered with."""

    statuses: Counter[int] = field(default_factory=Counter)
    routes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Request] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many requests were answered."""
        return sum(self.statuses.values())

    def fault(self, what: str, request: Request) -> None:
        """Note a fault, and the first request that shows it."""
        self.faults[what] += 1
        self.examples.setdefault(what, request)


class Unexpected(logging.Handler):
    """Keeps what the service logs as unexpected."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(re.sub(r"job [0-9a-f]+: ", "", record.getMessage()))


@contextmanager
def heard() -> Iterator[Unexpected]:
    """What the service logs as unexpected; libraries, which quote headers of files, are silent as
    they are in the command.
    """
    log, everything = logging.getLogger("segweave.serve"), logging.getLogger()
    before = log.handlers, log.propagate
    unexpected, nothing = Unexpected(), logging.NullHandler()
    log.handlers, log.propagate = [unexpected], False
    everything.addHandler(nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield unexpected
    finally:
        log.handlers, log.propagate = before
        everything.removeHandler(nothing)


async def ask(application: Any, request: Request, draw: random.Random) -> tuple[int, bytes]:
    """The status and the body of an answer; (0, b"") where there is none. Raises what it raises."""
    raw = request.path.encode("utf-8", "surrogatepass")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": raw.decode("utf-8", "replace"),
        "raw_path": quote(raw).encode(),
        "query_string": request.query,
        "root_path": "",
        "headers": list(request.headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    size = draw.choice((1 << 16, 1 << 16, 1 << 16, 97))
    blocks = [request.body[k : k + size] for k in range(0, len(request.body), size)] or [b""]
    waiting = [
        {"type": "http.request", "body": block, "more_body": number + 1 < len(blocks)}
        for number, block in enumerate(blocks)
    ]
    if draw.random() < 0.02:
        # A client that goes away.
        waiting = [*waiting[:-1], {"type": "http.disconnect"}]
    waiting.reverse()
    status, body, ended = 0, bytearray(), asyncio.Event()

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop()
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            body.extend(message.get("body", b""))
            if not message.get("more_body"):
                ended.set()

    await application(scope, receive, send)
    return status, bytes(body)


class Mutations:
    """Requests that are nearly right, drawn with a seed."""

    def __init__(self, openapi: dict[str, Any], images: dict[str, bytes], seed: int) -> None:
        self.draw = random.Random(seed)
        self._images = images
        self._routes = [
            (path, method.upper())
            for path, methods in openapi["paths"].items()
            for method in methods
        ]
        self._routes += [("/", "GET"), ("/docs", "GET"), ("/openapi.json", "GET")]
        self.jobs: list[str] = []

    def __iter__(self) -> Iterator[tuple[str, Request]]:
        while True:
            draw = self.draw
            path, method = draw.choice(self._routes)
            if draw.random() < 0.35:
                path, method = "/jobs", "POST"
            route = f"{method} {path}"
            path = re.sub(r"\{(\w+)\}", lambda match: self._value(match[1]), path)
            if draw.random() < 0.1:
                method = draw.choice(_METHODS)
            if draw.random() < 0.05:
                path = self._broken(path)
            headers = [(b"host", b"127.0.0.1:8000")]
            body = b""
            if method.upper() in ("POST", "PUT", "PATCH") or draw.random() < 0.03:
                kind, body = self._body()
                headers.append((b"content-type", kind.encode("latin-1", "replace")))
                length = draw.choice((len(body), len(body), len(body), 0, 10**30, -1, "x"))
                headers.append((b"content-length", str(length).encode()))
            if draw.random() < 0.15:
                headers += self._headers()
            if draw.random() < 0.1:
                headers = [one for one in headers if draw.random() < 0.7]
            yield route, Request(method, path, self._query(), tuple(headers), body)

    def _value(self, name: str) -> str:
        draw = self.draw
        if name == "id" and self.jobs and draw.random() < 0.6:
            return draw.choice(self.jobs)
        if draw.random() < 0.4:
            return draw.choice(("1", "2", "labels", "array", "overlay", "measurements", "0"))
        return draw.choice((*_TEXTS, "0" * 32, str(draw.randint(-(10**20), 10**20))))

    def _broken(self, path: str) -> str:
        at = self.draw.randint(0, len(path))
        return path[:at] + self.draw.choice(_TEXTS) + path[at:]

    def _query(self) -> bytes:
        draw = self.draw
        if draw.random() < 0.6:
            return b""
        names = ("labels", "opacity", "number", "format", "x", "", "axis", "plane")
        parts = [
            f"{draw.choice(names)}={quote(draw.choice(_TEXTS), errors='surrogatepass')}"
            for _ in range(draw.randint(1, 3))
        ]
        text = "&".join(parts).encode()
        return text if draw.random() < 0.8 else bytes(draw.randbytes(20)) + text

    def _headers(self) -> list[tuple[bytes, bytes]]:
        draw = self.draw
        names = (
            b"host", b"origin", b"authorization", b"range", b"if-none-match", b"accept", b"cookie",
            b"x-forwarded-host", b"transfer-encoding", b"expect", b"content-length", b"te",
            b"content-type", b"accept-encoding", b"last-event-id", b"x" * 2000,
        )  # fmt: skip
        values = (
            b"", b"a", b"127.0.0.1", b"[::1", b"[::1]:80", b"http://127.0.0.1:8000", b"null",
            b"bytes=0-1", b"bytes=-999999999999", b"Bearer x", b"Bearer", b"\xff\xfe", b"chunked",
            b"*/*", b"9" * 5000, b"-1", b"gzip;q=nan", b"multipart/form-data; boundary=\xff",
        )  # fmt: skip
        return [(draw.choice(names), draw.choice(values)) for _ in range(draw.randint(1, 4))]

    def _body(self) -> tuple[str, bytes]:
        draw = self.draw
        choice = draw.random()
        if choice < 0.05:
            return draw.choice(_TYPES), draw.randbytes(draw.randint(0, 3000))
        if choice < 0.1:
            text = json.dumps({draw.choice(_FIELDS): draw.choice(_TEXTS) for _ in range(3)})
            return "application/json", text.encode()
        boundary = "b0undary"
        body = b"".join(self._part(boundary) for _ in range(draw.choice((1, 1, 1, 2, 3))))
        body += f"--{boundary}--\r\n".encode()
        if draw.random() < 0.15:
            body = self._damaged(body)
        kind = f"multipart/form-data; boundary={boundary}"
        return (kind if draw.random() < 0.95 else draw.choice(_TYPES)), body

    def _part(self, boundary: str) -> bytes:
        draw = self.draw
        if draw.random() < 0.75:
            name, content = draw.choice(list(self._images.items()))
            if draw.random() < 0.8:
                content = self._damaged(content)
            if draw.random() < 0.15:
                name = draw.choice((*self._images, *_TEXTS))
            name = name.replace("\r", "").replace("\n", "").replace('"', "")
            field = "files" if draw.random() < 0.95 else draw.choice(_FIELDS)
            shown = f'name="{field}"; filename="{name}"'
        else:
            field = draw.choice(_FIELDS)
            values = (*_TEXTS, "check", "affine", "nifti", "png", "npz", "true", "tiny", "mha")
            shown, content = f'name="{field}"', draw.choice(values).encode("utf-8", "replace")
        head = f"--{boundary}\r\nContent-Disposition: form-data; {shown}\r\n\r\n"
        return head.encode("utf-8", "replace") + content + b"\r\n"

    def _damaged(self, content: bytes) -> bytes:
        """Flipped, cut, doubled or replaced bytes; the beginning, where headers are, more often."""
        draw, changed = self.draw, bytearray(content)
        if not changed:
            return draw.randbytes(10)
        for _ in range(draw.choice((1, 1, 2, 4, 20))):
            most = len(changed) if draw.random() < 0.4 else min(len(changed), 400)
            at, way = draw.randrange(most), draw.random()
            if way < 0.45:
                changed[at] = draw.randrange(256)
            elif way < 0.6:
                changed[at : at + 4] = draw.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f")
                )
            elif way < 0.75:
                del changed[at:]
            elif way < 0.85:
                del changed[at : at + draw.randint(1, 40)]
            else:
                changed[at:at] = draw.randbytes(draw.randint(1, 40))
            if not changed:
                break
        return bytes(changed)


def by_schema(openapi: dict[str, Any], per_operation: int) -> Iterator[tuple[str, Request]]:
    """Requests that schemathesis makes of the OpenAPI: of values that break it, and, where any
    value is allowed, of values that keep it.
    """
    import requests
    import schemathesis
    from schemathesis import GenerationMode

    for result in schemathesis.openapi.from_dict(openapi).get_all_operations():
        operation = result.ok()
        route = f"{operation.method.upper()} {operation.path}"
        modes = [GenerationMode.POSITIVE]
        if _can_break(openapi["paths"][operation.path][operation.method.lower()]):
            modes.append(GenerationMode.NEGATIVE)
        for mode in modes:
            strategy = operation.as_strategy(generation_mode=mode)
            for case in _cases(strategy, max(1, per_operation // 2)):
                try:
                    made = requests.Request(**case).prepare()
                except (ValueError, TypeError):
                    # The client itself refuses to send it.
                    continue
                yield route, _from_requests(made)


def _can_break(about: dict[str, Any]) -> bool:
    """Whether an operation takes anything that not every text is."""
    kinds = {one["schema"].get("type") for one in about.get("parameters", ())}
    return "requestBody" in about or bool(kinds - {"string"})


def _cases(strategy: Any, count: int) -> list[dict[str, Any]]:
    """The arguments of requests; [] where there can be none."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable

    cases: list[dict[str, Any]] = []

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(strategy)
    def collect(case: Any) -> None:
        cases.append(case.as_transport_kwargs(base_url="http://127.0.0.1"))

    with suppress(Unsatisfiable):
        collect()
    return cases


def _from_requests(made: Any) -> Request:
    parts = urlsplit(made.url)
    headers = [(b"host", b"127.0.0.1")]
    for name, value in made.headers.items():
        pair = (
            one if isinstance(one, bytes) else str(one).encode("utf-8") for one in (name, value)
        )
        headers.append(tuple(pair))  # type: ignore[arg-type]
    body = made.body or b""
    content = body if isinstance(body, bytes) else str(body).encode("utf-8", "replace")
    lowered = tuple((name.lower(), value) for name, value in headers)
    return Request(
        made.method, unquote(parts.path, errors="replace"), parts.query.encode(), lowered, content
    )
