"""PNG and JPG: sizes from the header, pixels only by decoding the whole picture."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError, DataError
from inkbatch.geometry import Box
from inkbatch.io.layers.base import CheckedLayerSource
from inkbatch.io.layers.files import RangeFile, read_whole
from inkbatch.io.pictures.orientation import EXIF, UPRIGHT, exif_orientation, refuse_turned
from inkbatch.io.store.location import Location
from inkbatch.text import count_text

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPG_MAGIC = b"\xff\xd8\xff"
JPG_END = b"\xff\xd9"
MOST_RATIO = {"png": 1_100, "jpg": 20_000}  # bytes of pixels that one stored byte can decode to
PNG_COLOURS = {0: "grey", 2: "RGB", 3: "a palette", 4: "grey with alpha", 6: "RGB with alpha"}


@dataclass(frozen=True)
class Picture:
    """A PNG or JPG whose header has been read.

    Attributes:
        location: The file.
        size: Its bytes.
        kind: ``png`` or ``jpg``.
        shape_yx: (height, width).
        samples: 1 grey, 3 RGB; of any other form the channels that decoding gives at most.
        dtype: uint8 or uint16.
    """

    format: ClassVar[str] = "picture (PNG or JPG)"

    location: Location
    size: int
    kind: Literal["png", "jpg"]
    shape_yx: tuple[int, int]
    samples: int
    dtype: np.dtype[Any]

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.location.name

    @property
    def unpacked_bytes(self) -> int:
        """Memory that decoding takes at once."""
        return math.prod(self.shape_yx) * self.samples * self.dtype.itemsize

    def decode(self, out: NDArray[np.generic]) -> None:
        """Decode into `out` (samples, height, width).

        Raises:
            CorruptDataError: The file is truncated or damaged.
        """
        direct = self.samples == 1 and out.flags.c_contiguous
        pixels = self.pixels(out[0] if direct else None)
        wanted = self.shape_yx if self.samples == 1 else (*self.shape_yx, self.samples)
        if pixels.shape != wanted or pixels.dtype != self.dtype:
            raise CorruptDataError(
                f"{self.location}: expected {wanted} {self.dtype} as its header says, got {pixels.shape} "
                f"{pixels.dtype}; save it again as plain grey or RGB"
            )
        if not direct:
            out[...] = pixels if self.samples == 1 else np.moveaxis(pixels, -1, 0)

    def pixels(self, out: NDArray[np.generic] | None = None) -> NDArray[Any]:
        """Decode (height, width) or (height, width, channels), whatever the header says, into `out` if given.

        Raises:
            CorruptDataError: The file is truncated or damaged.
        """
        data = read_whole(self.location, self.size)
        if self.kind == "jpg" and not data.rstrip(b"\0\r\n").endswith(JPG_END):
            raise CorruptDataError(  # the decoder would fill the rest with grey and say nothing
                f"{self.location}: the picture has no end mark; the file is truncated, copy it again"
            )
        try:
            decode = imagecodecs.png_decode if self.kind == "png" else imagecodecs.jpeg_decode
            found: NDArray[Any] = decode(data, out=out)
        except (RuntimeError, ValueError) as error:
            raise CorruptDataError(
                f"{self.location}: the picture cannot be decoded ({error}); the file is damaged, copy it again"
            ) from error
        return found


def read_picture(location: Location, size: int, header: BinaryIO | RangeFile, *, any_form: bool = False) -> Picture:
    """Read the header of a PNG or JPG.

    Args:
        location: The file.
        size: Its bytes.
        header: The file, opened for reading its header.
        any_form: Take palettes, alpha and fewer than 8 bits, too, for a reader that turns them into grey.

    Raises:
        CorruptDataError: The header is damaged.
        DataError: A palette, alpha, a depth other than 8 or 16 bits, or a note that the picture is to be turned.
    """
    kind: Literal["png", "jpg"] = "png" if header.read(8) == PNG_MAGIC else "jpg"
    header.seek(0)
    try:
        height, width, samples, bits = (
            _png_header(location, header, any_form=any_form) if kind == "png" else _jpg_header(location, header)
        )
    except (struct.error, IndexError, ValueError) as error:
        raise CorruptDataError(
            f"{location}: its picture header cannot be read; the file is truncated or damaged, copy it again"
        ) from error
    if bits not in (8, 16) or samples not in (1, 3):
        raise DataError(
            f"{location}: expected grey or RGB with 8 or 16 bits, got {count_text(samples, 'channel')} of {bits} bits; "
            "save it again"
        )
    if min(height, width) < 1:
        raise CorruptDataError(f"{location}: its size is {height} x {width}; it holds no pixels, copy it again")
    if height * width * samples * bits // 8 > MOST_RATIO[kind] * size:
        raise CorruptDataError(
            f"{location}: its header promises {height} x {width} pixels, more than its {size} bytes can hold; the file "
            "is damaged, copy it again"
        )
    return Picture(location, size, kind, (height, width), samples, np.dtype(np.uint8 if bits == 8 else np.uint16))


def _png_header(location: Location, header: BinaryIO | RangeFile, *, any_form: bool) -> tuple[int, int, int, int]:
    """Read height, width, channels and bits from the IHDR chunk, which stands first."""
    data = header.read(26) or b""
    if data[12:16] != b"IHDR":
        raise ValueError("no IHDR")
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    if any_form:
        return height, width, 1 if colour == 0 else 3, max(bits, 8)
    if colour not in (0, 2):
        raise DataError(
            f"{location}: expected grey or RGB, the PNG holds {PNG_COLOURS.get(colour, colour)}; "
            "save it again as plain grey or RGB, without alpha or palette"
        )
    return height, width, 1 if colour == 0 else 3, bits


def _jpg_header(location: Location, header: BinaryIO | RangeFile) -> tuple[int, int, int, int]:
    """Read height, width, channels and bits from the frame header, which follows segments of any length."""
    position = 2
    while True:
        header.seek(position)
        data = header.read(10) or b""
        mark, code, length = struct.unpack(">BBH", data[:4])
        if mark != 0xFF:
            raise ValueError("expected a marker")
        if code == 0xFF:  # a fill byte
            position += 1
        elif 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):  # all frame types; not tables
            bits, height, width, samples = struct.unpack(">BHHB", data[4:10])
            return height, width, samples, bits
        else:
            if code == 0xE1 and data[4:].startswith(EXIF):
                header.seek(position + 10)
                turned = exif_orientation(header.read(length - 8) or b"")
                if turned != UPRIGHT:
                    refuse_turned(turned, str(location))
            position += 2 + length


class PictureStack(CheckedLayerSource):
    """Layers in pictures: one grey picture each, or the channels of one RGB picture; a read decodes whole pictures."""

    whole_layers = True

    def __init__(self, uri: str, pictures: Sequence[Picture], first_layer: int = 0) -> None:
        self.uri = uri
        self.first_layer = first_layer
        self.samples = self.block_layers = pictures[0].samples
        self.shape_zyx = (len(pictures) * self.samples, *pictures[0].shape_yx)
        self.block_yx = pictures[0].shape_yx
        self.dtype = pictures[0].dtype
        self._pictures = list(pictures)

    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        for number in range(indices.start // self.samples, -(-indices.stop // self.samples)):
            first = number * self.samples
            wanted = range(max(indices.start, first), min(indices.stop, first + self.samples))
            target = out[wanted.start - indices.start : wanted.stop - indices.start]
            if box.shape == self.block_yx and len(wanted) == self.samples:
                self._pictures[number].decode(target)
                continue
            whole = np.empty((self.samples, *self.block_yx), self.dtype)
            self._pictures[number].decode(whole)
            target[...] = whole[(slice(wanted.start - first, wanted.stop - first), *box.slices)]
