"""Bytes out of a packed file, a piece at a time: never more than asked for, whatever the file would unpack to."""

import bz2
import zlib
from typing import Any, BinaryIO

_PIECE = 1 << 20  # bytes that are unpacked at once
_INPUT = 1 << 16  # bytes that are read at once
_WINDOW = {"gzip": 31, "zlib": 47}  # zlib's names for the containers; 47: MetaImage writes either
_MOST_DEFLATED = 1040  # zlib cannot shrink anything further than 1:1032


def unpacked_limit(size: int, codec: str) -> float:
    """More bytes than this cannot be in `size` packed ones."""
    return {"raw": size, "bzip2": float("inf")}.get(codec, size * _MOST_DEFLATED)


class Unpacker:
    """Reads a stream that is `raw` or packed by gzip (in several members, too), zlib or bzip2.

    EOFError: the data end too early. zlib.error (a ValueError here) or OSError: they are damaged.
    """

    def __init__(self, stream: BinaryIO, codec: str) -> None:
        self._stream, self._codec = stream, codec
        self._input = b""  # read, and not unpacked yet
        self._whole = False  # the last member has ended, its checksum was right, and no other one has begun
        self._engine = self._new_engine()

    def read_into(self, target: memoryview) -> None:
        """Fills `target`, to its last byte."""
        if self.read_up_to(target) < len(target):
            raise EOFError

    def read_up_to(self, target: memoryview) -> int:
        """Fills `target` as far as the data go; the number of bytes."""
        at = 0
        while at < len(target):
            if self._codec == "raw":
                count = self._stream.readinto(target[at:])  # type: ignore[attr-defined]  # every open file has it
            else:
                piece = self._piece(min(_PIECE, len(target) - at))
                count = len(piece)
                target[at : at + count] = piece
            if not count:
                break
            at += count
        return at

    def skip(self, count: int) -> None:
        """Passes over `count` bytes of what is unpacked."""
        if self._codec == "raw":
            self._stream.seek(count, 1)
            return
        while count:
            piece = self._piece(min(_PIECE, count))
            if not piece:
                raise EOFError
            count -= len(piece)

    def finish(self) -> None:
        """Compares the checksum where the data end with what was read. Whatever follows is ignored, and not unpacked
        beyond its first byte."""
        if self._codec != "raw" and not self._piece(1, next_member=False) and not self._whole:
            raise EOFError

    def _piece(self, most: int, next_member: bool = True) -> bytes:
        """The next bytes, one to `most`; none where the data end, whether they are whole or not."""
        while True:
            if self._whole and (self._codec == "zlib" or not next_member):
                return b""
            # bzip2 keeps what it has not unpacked yet
            waiting = not self._whole and not getattr(self._engine, "needs_input", True)
            if not waiting and not self._input:
                self._input = self._stream.read(_INPUT)
                if not self._input:
                    return b""
            if self._whole:  # another member follows, or the zeros that fill up a block
                self._input = self._input.lstrip(b"\0")
                if not self._input:
                    continue
                self._engine, self._whole = self._new_engine(), False
            try:
                piece: bytes = self._engine.decompress(b"" if waiting else self._input, most)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            if self._engine.eof:
                self._input, self._whole = self._engine.unused_data, True
            else:
                self._input = getattr(self._engine, "unconsumed_tail", b"")
            if piece:
                return piece

    def _new_engine(self) -> Any:
        return bz2.BZ2Decompressor() if self._codec == "bzip2" else zlib.decompressobj(_WINDOW.get(self._codec, 31))
