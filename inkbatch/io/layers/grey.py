"""Pictures of one layer in any of their forms, as the grey values that they show."""

from __future__ import annotations

from io import BytesIO
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import tifffile
from numpy.typing import NDArray

from inkbatch.config import digest
from inkbatch.errors import CorruptDataError, DataError, InkbatchError
from inkbatch.geometry import Box
from inkbatch.io.layers.base import CheckedLayerSource, LayerSource
from inkbatch.io.layers.cached import DecodedLayers
from inkbatch.io.layers.files import RangeFile, open_header, read_whole
from inkbatch.io.layers.numbered import MAGIC_BYTES, Keeping, open_file
from inkbatch.io.layers.pictures import JPG_MAGIC, PNG_MAGIC, Picture, read_picture
from inkbatch.io.layers.tiff import CODEC_NAMES, REDUCED_OR_MASK, TIFF_MAGIC
from inkbatch.io.lossy import JPEG_IN_TIFF
from inkbatch.io.pictures.orientation import TAG, UPRIGHT, refuse_turned
from inkbatch.io.store.location import Location

MINISWHITE, MINISBLACK, RGB, PALETTE = 0, 1, 2, 3
STREAMED_BITS = (8, 16, 32)
STRIP_BYTES = 32 << 20


class _Odd(NamedTuple):
    """A TIFF page that has to be decoded whole: (height, width), dtype of its grey values, and if it has losses."""

    shape_yx: tuple[int, int]
    dtype: np.dtype[Any]
    lossy: bool


def open_grey_picture(place: Location, keeping: Keeping) -> LayerSource:
    """Open a PNG, JPG or TIFF as grey values; several grey pages of a TIFF are several layers.

    What might show colours or be transparent is read once now, so that a job refuses it before it writes anything.

    Raises:
        CorruptDataError: It is truncated, or is no picture.
        DataError: Its size passes the memory budget, or its pixels are of a kind that is not read.
    """
    size = place.size()
    with open_header(place, size) as header:
        start = header.read(MAGIC_BYTES) or b""
        header.seek(0)
        if start.startswith((PNG_MAGIC, JPG_MAGIC)):
            picture = read_picture(place, size, header, any_form=True)
            kept = _whole(GreyPicture(picture, lossy=picture.kind == "jpg"), picture.samples, keeping)
            return _looked_through(kept) if picture.samples > 1 else kept
        odd = _odd_tiff(place, header) if start.startswith(TIFF_MAGIC) else None
    if odd is not None:
        return _looked_through(_whole(GreyTiff(place, size, odd), 3, keeping))
    plain = open_file(place, keeping)
    source = EqualChannels.of(plain)
    return source if source is plain else _looked_through(source)


def _looked_through(source: LayerSource) -> LayerSource:
    """Read a picture once, in strips.

    Raises:
        DataError: It shows more than grey, or is damaged.
    """
    _, height, width = source.shape_zyx
    step = (
        height if source.whole_layers else max(source.block_yx[0], STRIP_BYTES // (3 * width * source.dtype.itemsize))
    )
    try:
        for y0 in range(0, height, step):
            source.read(range(1), Box(y0, 0, min(height, y0 + step), width))
    except BaseException:
        source.close()
        raise
    return source


def _whole(source: CheckedLayerSource, channels: int, keeping: Keeping) -> LayerSource:
    """Keep a picture once it is decoded."""
    needed = int(np.prod(source.shape_zyx)) * channels * source.dtype.itemsize
    if needed > max(keeping.memory_bytes, 16 << 20):
        raise DataError(
            f"{source.uri}: unpacks to {needed:,} bytes at once, more than the memory budget of "
            f"{keeping.memory_bytes:,}; allow more memory, or save it as grey"
        )
    kept = DecodedLayers(source, keeping.memory_bytes, keeping.scratch)
    kept.lossy = source.lossy
    return kept


class GreyPicture(CheckedLayerSource):
    """A PNG or JPG of any form: black and white, grey, palette, RGB; opaque alpha is left out."""

    whole_layers = True

    def __init__(self, picture: Picture, *, lossy: bool) -> None:
        self.uri, self.dtype, self.lossy = str(picture.location), picture.dtype, lossy
        self.shape_zyx = (1, *picture.shape_yx)
        self.block_yx = picture.shape_yx
        self.fingerprint = digest([[picture.location.name, picture.size]])
        self._picture = picture

    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        out[0] = grey_values(self._picture.pixels(), self.uri)[box.slices]


class GreyTiff(CheckedLayerSource):
    """A TIFF whose page is not plain grey or RGB: one bit, white as zero, palette, alpha, or compressed with losses."""

    whole_layers = True

    def __init__(self, place: Location, size: int, found: _Odd) -> None:
        self.uri, self.dtype, self.lossy = str(place), found.dtype, found.lossy
        self.shape_zyx, self.block_yx = (1, *found.shape_yx), found.shape_yx
        self.fingerprint = digest([[place.name, size]])
        self._place, self._size = place, size

    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        try:
            with tifffile.TiffFile(BytesIO(read_whole(self._place, self._size))) as tiff:
                page: Any = tiff.pages[0]
                pixels = _shown(page, np.asarray(page.asarray()))
        except (InkbatchError, MemoryError):
            raise
        except Exception as error:  # tifffile and codecs raise whatever damaged bytes lead them to
            raise CorruptDataError(
                f"{self.uri}: the picture cannot be decoded ({type(error).__name__}: {error}); copy it again, or save "
                "it as plain grey"
            ) from error
        out[0] = grey_values(pixels, self.uri)[box.slices]


class EqualChannels(CheckedLayerSource):
    """The one layer of a picture whose three channels are equal; others are refused where they differ."""

    def __init__(self, inner: LayerSource) -> None:
        self._inner = inner
        self.uri, self.dtype, self.lossy, self.fingerprint = inner.uri, inner.dtype, inner.lossy, inner.fingerprint
        self.shape_zyx = (1, *inner.shape_zyx[1:])
        self.block_yx, self.whole_layers = inner.block_yx, inner.whole_layers
        self.resident_bytes, self.spacing = inner.resident_bytes, inner.spacing

    @staticmethod
    def of(source: LayerSource) -> LayerSource:
        """Wrap a source of channels; any other source is returned as it is."""
        return EqualChannels(source) if source.channels == 3 else source

    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        block = self._inner.read(range(3), box)
        out[0] = grey_values(np.moveaxis(block, 0, -1), self.uri)

    def close(self) -> None:
        """See `LayerSource.close`."""
        self._inner.close()


def grey_values(pixels: NDArray[Any], place: str) -> NDArray[Any]:
    """Return (Y, X) of a decoded picture (Y, X) or (Y, X, channels) that shows grey alone and is opaque.

    Raises:
        DataError: Colours, or transparent pixels.
    """
    if pixels.ndim == 2:
        return pixels
    channels = pixels.shape[2]
    if channels in (2, 4):
        if (pixels[..., -1] != np.iinfo(pixels.dtype).max).any():
            raise DataError(
                f"{place}: expected an opaque picture, got transparent pixels, whose ground nothing states; flatten it "
                "onto the ground that you mean, and save it without alpha"
            )
        pixels = pixels[..., :-1]
    first = pixels[..., 0]
    if any((first != pixels[..., other]).any() for other in range(1, pixels.shape[2])):
        raise DataError(f"{place}: expected grey values, got colours; save the channel that you mean as a grey picture")
    return first


def _odd_tiff(place: Location, header: BinaryIO | RangeFile) -> _Odd | None:
    """Look for a page that has to be decoded whole; None for plain grey and RGB."""
    try:
        with tifffile.TiffFile(cast("BinaryIO", header), name=place.name) as tiff:
            page: Any = tiff.pages[0]
            code, bits = int(page.photometric), page.bitspersample
            lossy = int(page.compression) in JPEG_IN_TIFF
            plain = code in (MINISBLACK, RGB) and bits in STREAMED_BITS and page.samplesperpixel in (1, 3)
            if plain and int(page.compression) in CODEC_NAMES:
                return None
            others: list[Any] = list(tiff.pages)
            count = sum(not int(other.subfiletype) & REDUCED_OR_MASK for other in others)
            shape = int(page.imagelength), int(page.imagewidth)
            orientation = page.tags.valueof(TAG, UPRIGHT)
    except Exception:  # the usual reader says what is wrong
        return None
    known = code in (MINISWHITE, MINISBLACK, RGB, PALETTE) or lossy
    if not known or not isinstance(bits, int) or bits not in (1, 8, 16) or min(shape) < 1:
        return None
    if count > 1:
        raise DataError(f"{place}: expected one 2-D picture, got {count} pages; save the one you mean by itself")
    if orientation not in (0, UPRIGHT):  # 0 is no valid value, but is written for "not stated"
        refuse_turned(orientation, str(place))
    return _Odd(shape, np.dtype(np.uint8 if bits < 16 or code == PALETTE else np.uint16), lossy)


def _shown(page: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    """Turn a page's stored pixels into the grey values, or channels, that they show."""
    code = int(page.photometric)
    if code == PALETTE:
        colours = (np.asarray(page.colormap) >> 8).astype(np.uint8)  # (3, entries) of 16 bits
        shown: NDArray[Any] = np.moveaxis(colours[:, pixels], 0, -1)
        return shown
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    return np.iinfo(pixels.dtype).max - pixels if code == MINISWHITE else pixels
