"""Named shared memory that is never torn: readers see what was last written as a whole, whoever dies while writing.

The data lie twice. A writer (one at a time) fills the copy that is not current and then its header, so the other stays
whole until the new one is; a reader takes the newest copy whose header and data fit their checksums, and looks again
when writers have overtaken it. So a reader waits for nobody, and a write costs as much as all that was written.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import threading
import time
import zlib
from pathlib import Path

from asyncworker.errors import BadParameters, DecodeError
from asyncworker.share.place import Place

PATIENCE_S = 5.0
_TRIES = 1000
_MAGIC = b"asyncwk2"
_HEAD = struct.Struct("<8sQQII")  # magic, version, length, checksum of the data, checksum of this header
_CHECKED = struct.Struct("<8sQQI")
_ROOM = 64


class SharedMemoryManager:
    """Shared memory of one name, in which *size* bytes have room.

    Args:
        name: what those who share it call it. Its file has another name, in a place whose name is random.
        place: where it is: the path of a `Place`, or of `HighPerformanceIPC`'s; without one `create` makes a place,
            ``.place``, which those who connect must be told.
    """

    def __init__(self, name: str, size: int, place: str | Path | None = None) -> None:
        if size < 1:
            raise BadParameters(f"shared memory holds 1 byte or more, not {size}")
        self.name, self.size = name, size
        self.place = Path(place) if place is not None else None
        self._owned: Place | None = None
        self._memory: mmap.mmap | None = None
        self._descriptor = -1
        self._created = False
        self._lock = threading.Lock()

    def create(self) -> bool:
        """Make it; returns False where it is there already. OSError: no room."""
        if self.place is None:
            self._owned = Place()
            self.place = self._owned.path
        try:
            descriptor = os.open(self._path(), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            return False
        self._created = True
        try:
            _reserve(descriptor, self._total)
            self._map(descriptor)
        except BaseException:
            os.close(descriptor)
            self.cleanup()
            raise
        return True

    def connect(self) -> bool:
        """Open what somebody else has made; returns False where there is none.

        Raises:
            BadParameters: it is there, with another size.
        """
        if self.place is None:
            return False
        try:
            descriptor = os.open(self._path(), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        if (there := os.fstat(descriptor).st_size) != self._total:
            os.close(descriptor)
            raise BadParameters(f"shared memory {self.name!r} holds {there // 2 - _ROOM} bytes, not {self.size}")
        self._map(descriptor)
        return True

    def write_data(self, data: bytes | bytearray | memoryview, offset: int = 0) -> None:
        """Write *data* from *offset* on; what lies before and behind stays as it is.

        Raises:
            BadParameters: it does not fit. TimeoutError: another writer stands still.
        """
        data = memoryview(data).cast("B")
        if offset < 0 or offset + len(data) > self.size:
            raise BadParameters(f"{len(data)} bytes at {offset} do not fit into the {self.size} of {self.name!r}")
        memory = self._mapped()
        with self._lock:
            deadline = time.monotonic() + PATIENCE_S
            while not _locked(self._descriptor):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another writer holds {self.name!r} for more than {PATIENCE_S:g} s")
                time.sleep(0.0002)
            try:
                self._replace(memory, data, offset)
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def read_data(self, length: int | None = None, offset: int = 0) -> bytes:
        """Return *length* bytes from *offset* on, all of one moment; without a length all that was written.

        Raises:
            BadParameters: so much was not written. DecodeError: it is corrupt.
        """
        memory = self._mapped()
        for _ in range(_TRIES):
            slot, version, written, checksum = self._newest(memory)
            if not version and _anything(memory):
                continue  # writers have overtaken this look, or it is corrupt
            end = written if length is None else offset + length
            if offset < 0 or end > written or end < offset:
                raise BadParameters(f"{self.name!r} has {written} bytes, not those from {offset} to {end}")
            start = slot * self._stride + _ROOM
            data = memory[start : start + written]
            if zlib.crc32(data) == checksum:
                return data if (offset, end) == (0, written) else data[offset:end]
        raise DecodeError(f"shared memory {self.name!r} is corrupt")

    def cleanup(self) -> None:
        """Let go of it; who made it removes it, while others who have it open may go on. Harmless when repeated."""
        if self._memory is not None:
            self._memory.close()
            os.close(self._descriptor)
            self._memory = None
        if self._created:
            self._path().unlink(missing_ok=True)
            self._created = False
        if self._owned is not None:
            self._owned.close()
            self._owned = self.place = None

    @property
    def _stride(self) -> int:
        return _ROOM + self.size

    @property
    def _total(self) -> int:
        return 2 * self._stride

    def _path(self) -> Path:
        assert self.place is not None, "known once it is made or connected to"
        return self.place / f"memory-{hashlib.blake2b(self.name.encode(), digest_size=16).hexdigest()}"

    def _map(self, descriptor: int) -> None:
        self._memory, self._descriptor = mmap.mmap(descriptor, self._total), descriptor

    def _mapped(self) -> mmap.mmap:
        if self._memory is None:
            raise BadParameters(f"shared memory {self.name!r} is not open: create it or connect to it")
        return self._memory

    def _newest(self, memory: mmap.mmap) -> tuple[int, int, int, int]:
        """Return the newest copy that is whole by its header: which, its version, length and checksum; version 0: none."""
        newest = (1, 0, 0, 0)
        for slot in (0, 1):
            start = slot * self._stride
            magic, version, written, checksum, own = _HEAD.unpack(memory[start : start + _HEAD.size])
            fits = magic == _MAGIC and written <= self.size
            if fits and own == zlib.crc32(_CHECKED.pack(magic, version, written, checksum)) and version > newest[1]:
                newest = (slot, version, written, checksum)
        return newest

    def _replace(self, memory: mmap.mmap, data: memoryview, offset: int) -> None:
        slot, version, written, _ = self._newest(memory)
        old, new = slot * self._stride + _ROOM, (1 - slot) * self._stride + _ROOM
        length = max(written, offset + len(data))
        memory[new - _ROOM : new] = bytes(_ROOM)
        if offset or len(data) < written:
            memory[new : new + length] = memory[old : old + written].ljust(length, b"\0")
        memory[new + offset : new + offset + len(data)] = data
        with memoryview(memory) as whole, whole[new : new + length] as part:
            checked = _CHECKED.pack(_MAGIC, version + 1, length, zlib.crc32(part))
        memory[new - _ROOM : new - _ROOM + _HEAD.size] = checked + struct.pack("<I", zlib.crc32(checked))


def _anything(memory: mmap.mmap) -> bool:
    """Return whether anything was ever written."""
    half = len(memory) // 2
    return any(memory[:_ROOM]) or any(memory[half : half + _ROOM])


def _reserve(descriptor: int, size: int) -> None:
    """Take memory for all of it now: who writes to a page that there is no room for dies."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
