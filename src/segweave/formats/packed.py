"""Reads compressed data piece by piece, so that no file unfolds to more than was asked for."""

from __future__ import annotations

import zlib
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 16
_PIECE = 1 << 20
_MEMBERS = 1000
_LEAST_OF_A_MEMBER = 256
"""Programs that write many gzip members fill each with kilobytes; a million empty ones take time
and hold nothing."""
_GZIP_MAGIC = b"\x1f\x8b"


class Unpacked:
    """What a gzip stream (of any number of members), or a zlib stream, holds.

    It reads as a file does, forwards only. Raises zlib.error for damaged data, EOFError for data
    that end too early: both where checksums are compared, so that reading one byte beyond what is
    wanted compares them.
    """

    def __init__(self, stream: IO[bytes], *, form: str = "gzip") -> None:
        """Start at the stream's position; `form` is "gzip", "zlib" or "deflate" (bare)."""
        self._stream = stream
        self._gzip = form == "gzip"
        self._bits = {"gzip": 31, "zlib": 15, "deflate": -15}[form]
        self._unpacker = zlib.decompressobj(self._bits)
        self._block = b""
        self._more = False
        self._ended = False
        self._members = 1
        self._made = 0

    def __enter__(self) -> Unpacked:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""
        buffer = bytearray(count)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer; returns how many bytes there were."""
        done = 0
        while done < len(buffer) and (piece := self._next(min(_PIECE, len(buffer) - done))):
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def skip(self, count: int) -> int:
        """Pass over `count` bytes, keeping none; returns how many there were."""
        done = 0
        while done < count and (piece := self._next(min(_PIECE, count - done))):
            done += len(piece)
        return done

    def _next(self, most: int) -> bytes:
        while not self._ended:
            if self._unpacker.eof:
                self._next_member()
                continue
            if not self._block and not self._more:
                self._block = self._stream.read(_BLOCK)
                if not self._block:
                    raise EOFError("the compressed data end before their end mark")
            piece = self._unpacker.decompress(self._block, most)
            self._more = len(piece) == most
            self._block = self._unpacker.unconsumed_tail
            if self._unpacker.eof:
                self._block, self._more = self._unpacker.unused_data, False
            if piece:
                self._made += len(piece)
                return piece
        return b""

    def _next_member(self) -> None:
        """Go on to the next member of a gzip file; zeros may pad the end of one."""
        self._block = self._block.lstrip(b"\0") if self._gzip else b""
        while self._gzip and len(self._block) < 2 and (more := self._stream.read(_BLOCK)):
            self._block = (self._block + more).lstrip(b"\0")
        if not self._block:
            self._ended = True
            return
        self._members += 1
        if self._block[:2] != _GZIP_MAGIC:
            raise zlib.error("something else after the end of the compressed data")
        if self._members > _MEMBERS and self._made < self._members * _LEAST_OF_A_MEMBER:
            raise zlib.error(f"more than {_MEMBERS} compressed members that hold next to nothing")
        self._unpacker = zlib.decompressobj(self._bits)


def read_into(stream: Any, size: int) -> NDArray[np.uint8]:
    """The next `size` bytes of a file or of `Unpacked`, fewer at the end. Memory is taken as
    they come, not by what a header declares.
    """
    buffer = np.empty(size, np.uint8)
    view, done = memoryview(buffer.data), 0
    while done < size and (count := stream.readinto(view[done : done + (1 << 22)])):
        done += count
    return buffer[:done]
