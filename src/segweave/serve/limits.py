"""What the service allows, and the errors that it answers with."""

from __future__ import annotations

from dataclasses import dataclass

from segweave.errors import SegweaveError


@dataclass(frozen=True)
class Limits:
    """The limits of a service; each is refused with its own message and status code.

    Attributes:
        bytes: the most bytes of one upload, and of what a zip unpacks to.
        files: the most files of one upload, and in a zip.
        ratio: how many times its size compressed data may unfold to.
        voxels: the most voxels (pixels of all slices and channels) of one image.
        seconds: the longest that one prediction may run; looked at after each slice.
        upload_seconds: the longest that one upload may take.
        queue: the most jobs that wait; jobs that are being uploaded count.
        connections: the most connections at a time.
        restarts: how often a job runs again after the server was killed while it ran.
        keep_hours: how long the results of a job stay after its end.
    """

    bytes: int = 1 << 30
    files: int = 4000
    ratio: int = 200
    voxels: int = 300_000_000
    seconds: float = 600.0
    upload_seconds: float = 600.0
    queue: int = 32
    connections: int = 200
    restarts: int = 20
    keep_hours: float = 24.0


class RefusedError(SegweaveError):
    """A request that the service refuses.

    Attributes:
        status: the HTTP status code.
        retry_after: after how many seconds the client may try again; None where that won't help.
    """

    exit_code = 2

    def __init__(
        self,
        status: int,
        doing: str,
        *,
        expected: str | None = None,
        found: str | None = None,
        remedy: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(doing, expected=expected, found=found, remedy=remedy)
        self.status = status
        self.retry_after = retry_after
