"""A service as something that predicts: `segweave predict --server`."""

from __future__ import annotations

import io
import json
import secrets
import time
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from segweave.data.boxes import CaseBoxes
from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, SegweaveError, UsageError, nearest
from segweave.prediction import Prediction
from segweave.prediction.uncertainty import Uncertainty
from segweave.runtime.progress import Progress

_DOING = "predicting on a server"
_POLL = (0.05, 1.0)  # seconds between two looks at a job: the first, and at most
_BUSY = (429, 503)
_TIMEOUT = 60.0


class RemoteSession:
    """A model of a service (`segweave serve`), used as a `Session` is.

    Only pixels and spacing of a case are sent, no file, no name and no header; labels come back on
    the case's own grid. What is sent is deleted from the server when the labels are here.

    Attributes:
        target: what the classes are.
        card: what the service says of the model.
    """

    def __init__(
        self, url: str, model: str, *, token: str | None = None, patience: float = 60.0
    ) -> None:
        """Ask the service for the model.

        Args:
            url: the address of the service, http://127.0.0.1:8000.
            model: the name of the model there.
            token: the token of the service, where it asks for one.
            patience: for how many seconds a server that does not answer is asked again.

        Raises UsageError for another address and for a model that is not there, InputError where
        something else answers, SegweaveError where nothing does.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise UsageError(
                _DOING, expected="an address such as http://127.0.0.1:8000", found=repr(url)
            )
        self._url = url.rstrip("/")
        self._patience = patience
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if parts.hostname in ("localhost", "127.0.0.1", "::1"):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)
        answer = self._json("GET", "/models", patience=0.0)
        try:
            cards = {card["name"]: card for card in answer["models"]}
            self._most_bytes = int(answer["limits"]["bytes"])
            if model not in cards:
                raise UsageError(_DOING, found=f"model {model!r}", remedy=nearest(model, cards))
            self._model = model
            self.card: dict[str, Any] = cards[model]
            self.target = TargetSpec.model_validate(self.card["target"])
        except (KeyError, TypeError, ValidationError) as error:
            raise self._other() from error

    def check_boxes(self, given: object | None) -> None:
        """Raise UsageError where boxes are given: a service has no networks that read them."""
        if given is not None:
            raise UsageError(_DOING, expected="no box", found="a box", remedy="predict here")

    def predict(
        self,
        case: Case,
        *,
        boxes: CaseBoxes | None = None,
        probabilities: bool = False,
        uncertainty: Uncertainty | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Segment a case on the server, as `Session.predict` does here.

        A full queue is waited for. Raises InputError with the server's reason where it refuses the
        case, SegweaveError where it does not answer.
        """
        self.check_boxes(boxes)
        fields = {"model": self._model, "probabilities": "true" if probabilities else "false"}
        if uncertainty is not None:
            fields["uncertainty"] = uncertainty
        job = self._json("POST", "/jobs", form=(fields, self._packed(case)))
        path = f"/jobs/{job['id']}"
        try:
            self._wait(path, case, progress)
            labels = self._array(f"{path}/results/array", "label", case)
            maps = None
            if probabilities:
                maps = self._array(f"{path}/results/probabilities", "probabilities", case)
            spread = None
            if uncertainty is not None:
                spread = self._array(f"{path}/results/uncertainty", "uncertainty", case)
        finally:
            # After Ctrl-C too: nobody will fetch it. What can't be deleted expires.
            with suppress(SegweaveError):
                self._ask("DELETE", path, patience=0.0)
        return Prediction(labels.astype(np.uint8, copy=False), maps, case, spread)

    def _packed(self, case: Case) -> bytes:
        arrays: dict[str, NDArray[Any]] = {"image": case.image}
        if case.spacing is not None:
            arrays["spacing_zyx_mm"] = np.asarray(case.spacing, np.float64)
        stream = io.BytesIO()
        fits = case.image.nbytes < self._most_bytes - (1 << 16)
        save = np.savez if fits else np.savez_compressed
        save(stream, **arrays)  # type: ignore[arg-type]
        return stream.getvalue()

    def _wait(self, path: str, case: Case, progress: Progress | None) -> None:
        pause = _POLL[0]
        while True:
            job = self._json("GET", path)
            state = job.get("state")
            if state == "done":
                return
            if state == "failed":
                raise self._refused(str(job.get("error", {}).get("message", "")), case)
            if progress is not None and job["progress"]["total"]:
                progress(job["progress"]["done"], job["progress"]["total"], case.id)
            time.sleep(pause)
            pause = min(2 * pause, _POLL[1])

    def _array(self, path: str, name: str, case: Case) -> NDArray[Any]:
        content = self._ask("GET", path)
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                found: NDArray[Any] = arrays[name]
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise self._other() from error
        if (found.shape[0], *found.shape[-2:]) != (case.slices, *case.size):
            raise InputError(
                _DOING,
                expected="labels of {} × {} × {}".format(case.slices, *case.size),
                found=" × ".join(map(str, found.shape)),
                remedy="use the same version of segweave here and on the server",
            )
        return found

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            answer = json.loads(self._ask(method, path, **options))
        except ValueError as error:
            raise self._other() from error
        if not isinstance(answer, dict):
            raise self._other()
        return answer

    def _ask(
        self,
        method: str,
        path: str,
        *,
        form: tuple[dict[str, str], bytes] | None = None,
        patience: float | None = None,
    ) -> bytes:
        """The body of an answer. A busy server is asked again, and for `patience` seconds one that
        does not answer.
        """
        body, headers = None, dict(self._headers)
        if form is not None:
            boundary = secrets.token_hex(16)
            body = _multipart(boundary, *form)
            headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        until = time.monotonic() + (self._patience if patience is None else patience)
        while True:
            request = urllib.request.Request(self._url + path, body, headers, method=method)
            try:
                with self._opener.open(request, timeout=_TIMEOUT) as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in _BUSY or (error.code == 503 and time.monotonic() > until):
                        raise self._refused(_message(error)) from None
                    after = error.headers.get("Retry-After", "")
                pause = min(float(after), 30.0) if after.isdecimal() else 1.0
            except (OSError, HTTPException) as error:
                if time.monotonic() > until:
                    raise SegweaveError(
                        _DOING,
                        expected=f"a service at {self._url}",
                        found=str(getattr(error, "reason", error)),
                        remedy="start it: segweave serve MODEL",
                    ) from error
                pause = 0.5
            time.sleep(pause)

    def _refused(self, message: str, case: Case | None = None) -> InputError:
        source = None if case is None or case.provenance is None else case.provenance.file
        return InputError(
            f"{_DOING} ({self._url})", file=source, found=message.replace("\n", "\n  ")
        )

    def _other(self) -> InputError:
        return InputError(
            _DOING, expected="a service of segweave", found=f"something else at {self._url}"
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token must not follow to another address."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing: the answer is an error."""


def _message(error: urllib.error.HTTPError) -> str:
    with suppress(ValueError, OSError, KeyError, TypeError, HTTPException):
        return str(json.loads(error.read(1 << 20))["message"])
    return f"status {error.code}"


def _multipart(boundary: str, fields: dict[str, str], image: bytes) -> bytes:
    disposition = 'Content-Disposition: form-data; name="{}"'
    lines = [
        f"--{boundary}\r\n{disposition.format(name)}\r\n\r\n{value}\r\n"
        for name, value in fields.items()
    ]
    lines.append(
        f'--{boundary}\r\n{disposition.format("files")}; filename="image.npz"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return "".join(lines).encode() + image + f"\r\n--{boundary}--\r\n".encode()
