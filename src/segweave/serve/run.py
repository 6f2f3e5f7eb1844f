"""Runs the service: address, token, log, and the server's loop."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from segweave.errors import MissingExtraError, SegweaveError, UsageError
from segweave.recipes.recipe import Precision
from segweave.serve.limits import Limits
from segweave.serve.models import load_models
from segweave.serve.token import read_token

if TYPE_CHECKING:
    from segweave.serve.service import Service

_DOING = "starting the service"


def serve(
    models: Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: str | Path | None = None,
    folder: str | Path = "segweave-jobs",
    limits: Limits | None = None,
    collect: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "32",
    announce: Callable[[str], None] | None = None,
    started: Callable[[str, Service], None] | None = None,
) -> None:
    """Serve until the process is interrupted.

    Args:
        models: run folders and model folders; the name of each is that of its folder.
        host: the address to listen at. Any but a loopback address needs `token_file`.
        port: the port; 0 takes a free one.
        token_file: a file with the token that clients have to send.
        folder: the folder of jobs, with the images and results of patients.
        limits: what is allowed; the defaults of `Limits` unless given.
        collect: the folder to which the page adds images with corrected masks; None for no folder.
        device: see `segweave.load`.
        precision: see `segweave.load`.
        announce: called with the address once requests are answered.
        started: called with the address and the service before the first request is answered; what
            it raises ends the service.

    Raises MissingExtraError without the extra `serve`, UsageError for an address that needs a token
    and for a folder that another service has, InputError for a token that is too short, and what
    `segweave.load` raises.
    """
    uvicorn = _library()
    token = None if token_file is None else read_token(token_file)
    limits = Limits() if limits is None else limits
    # Imported here: it needs the extra.
    from segweave.serve.app import create_app
    from segweave.serve.collect import Collection
    from segweave.serve.gate import is_loopback
    from segweave.serve.service import Service

    if token is None and not is_loopback(host):
        raise UsageError(
            _DOING,
            expected="a loopback address (127.0.0.1), or a token for any other",
            found=host,
            remedy="give --token-file FILE with at least 16 random characters, and put a proxy "
            "with TLS before the service",
        )
    collection = None if collect is None else Collection(collect)
    listener = _listen(host, port)
    with listener:
        _quiet()
        loaded = load_models(models, device=device, precision=precision)
        service = Service(loaded, folder, limits, collection)
        config = uvicorn.Config(
            create_app(service, token=token),
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=limits.connections,
            timeout_graceful_shutdown=5,
            lifespan="on",
        )
        server = _server(uvicorn, config, service)
        # Here rather than by the application: what it raises is shown to the person.
        with service:
            shown, at = listener.getsockname()[:2]
            address = f"http://{f'[{shown}]' if ':' in shown else shown}:{at}"
            if started is not None:
                started(address, service)
            if announce is not None:
                announce(address)
            with _ended_by_signal():
                server.run(sockets=[listener])


def _library() -> Any:
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
    except ImportError as error:
        library = (error.name or "fastapi").replace("_", "-")
        raise MissingExtraError(_DOING, library=library, extra="serve") from error
    return uvicorn


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise SegweaveError(
            f"{_DOING}: {getattr(error, 'strerror', None) or error}",
            expected="an address of this machine with a free port",
            found=f"{host}, port {port}",
            remedy="choose another with --host and --port; --port 0 takes a free one",
        ) from error


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """The server raises SIGTERM again when it has stopped: let the service end after that."""

    def end(*_: object) -> None:
        raise SystemExit(0)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _server(uvicorn: Any, config: Any, service: Service) -> Any:
    class Server(uvicorn.Server):
        """It stops the job and the streams of events first, so that it need not wait for them."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            service.stop()
            super().handle_exit(sig, frame)

    return Server(config)


def _quiet() -> None:
    """Log what the service itself says, and nothing else: libraries quote headers of files."""
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    for name in ("segweave.serve", "uvicorn.error"):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.INFO if name == "segweave.serve" else logging.WARNING)
