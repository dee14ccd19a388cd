"""A read-only zarr store over a `Location`: our retries, our errors, and no hole where an object is empty."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from fsspec.asyn import AsyncFileSystem
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from inkbatch.errors import CorruptDataError, StorageError
from inkbatch.io.layers.zarr_nodes import METADATA_NAMES
from inkbatch.io.store import retrying
from inkbatch.io.store.faults import judge
from inkbatch.io.store.location import Location
from inkbatch.io.store.meter import READ

BLOSC_HEADER_BYTES = 16  # the last four state the length of the whole buffer


class LocationStore(Store):
    """Keys of a zarr array below one folder, for reading only."""

    def __init__(self, location: Location, *, blosc_chunks: bool = False) -> None:
        """Remember where an array is.

        Args:
            location: Its folder.
            blosc_chunks: Objects other than metadata are Blosc buffers. Their length is checked here: the decoder
                trusts the length in their header, and would read beyond a buffer that was cut off.
        """
        super().__init__(read_only=True)
        self.location = location
        self._blosc_chunks = blosc_chunks

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocationStore) and other.location == self.location

    def __hash__(self) -> int:
        return hash(self.location)

    def __str__(self) -> str:
        return str(self.location)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read the object or a part of it; None where it is not there.

        Raises:
            CorruptDataError: The object is empty, or shorter than the part.
            StorageError: Reading failed again after retries.
        """
        place = self.location / key
        start, stop, wanted = _limits(byte_range)
        try:
            data = await _read(place, start, stop)
        except FileNotFoundError:
            return None
        if wanted is None and self._blosc_chunks and place.name not in METADATA_NAMES:
            wanted = max(BLOSC_HEADER_BYTES, int.from_bytes(data[12:16], "little"))
        if not data or (wanted is not None and len(data) != wanted):
            raise CorruptDataError(
                f"{place}: expected {wanted or 'some'} bytes, got {len(data)}; it was cut off, copy it again"
            )
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read several parts at once."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Tell whether the object is there."""
        place = self.location / key
        return await asyncio.to_thread(place.exists)

    @property
    def supports_writes(self) -> bool:
        """False: this store reads only."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """False: this store reads only."""
        return False

    @property
    def supports_listing(self) -> bool:
        """False: an array whose place is known is read without."""
        return False

    async def set(self, key: str, value: Buffer) -> None:
        """Raise `NotImplementedError`: this store reads only."""
        raise NotImplementedError("LocationStore reads only")

    async def delete(self, key: str) -> None:
        """Raise `NotImplementedError`: this store reads only."""
        raise NotImplementedError("LocationStore reads only")

    def list(self) -> AsyncIterator[str]:
        """Raise `NotImplementedError`: this store lists nothing."""
        raise NotImplementedError("LocationStore lists nothing")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Raise `NotImplementedError`: this store lists nothing."""
        raise NotImplementedError("LocationStore lists nothing")

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Raise `NotImplementedError`: this store lists nothing."""
        raise NotImplementedError("LocationStore lists nothing")


def _limits(part: ByteRequest | None) -> tuple[int | None, int | None, int | None]:
    """Return (start, stop, exact length) as fsspec takes them: a negative start counts from the end."""
    if isinstance(part, RangeByteRequest):
        return part.start, part.end, part.end - part.start
    if isinstance(part, OffsetByteRequest):
        return part.offset, None, None
    if isinstance(part, SuffixByteRequest):
        return -part.suffix, None, part.suffix
    return None, None, None


async def _read(place: Location, start: int | None, stop: int | None) -> bytes:
    data = await _fetch(place, start, stop)
    READ.add(len(data))
    return data


async def _fetch(place: Location, start: int | None, stop: int | None) -> bytes:
    """Read without blocking zarr's event loop; fsspec's own loop does the work of remote stores."""
    waits = list(retrying.RETRY_DELAYS_S)
    while True:
        try:
            fs = place.fs
            if not isinstance(fs, AsyncFileSystem):
                return bytes(await asyncio.to_thread(fs.cat_file, place.path, start=start, end=stop))
            answer = asyncio.run_coroutine_threadsafe(fs._cat_file(place.path, start=start, end=stop), fs.loop)
            return bytes(await asyncio.wrap_future(answer))
        except Exception as error:
            ours = judge(place.uri, error)
            if ours is None or ours is error:
                raise
            if not isinstance(ours, StorageError) or not waits:
                raise ours from error
        await asyncio.sleep(waits.pop(0))
