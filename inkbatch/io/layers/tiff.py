"""TIFF headers: the tags of each page are read with few small ranges, and pages that would be misread are refused."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import numpy as np
import tifffile

from inkbatch.errors import CorruptDataError, DataError, InkbatchError
from inkbatch.io.layers.files import RangeFile
from inkbatch.io.layers.planes import DECODERS, FLOATING, HORIZONTAL, MOST_RATIO, NO_PREDICTOR, Plane
from inkbatch.io.store.location import Location
from inkbatch.text import count_text

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# TIFF tag values -> our names; old-style deflate (32946) is the same stream.
CODEC_NAMES = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate", 32773: "packbits", 50000: "zstd"}
BLACK_IS_ZERO, RGB = 1, 2
ORIENTATION_TAG = 274
UPRIGHT = (0, 1)  # 0 is no valid value, but is written for "not stated"
REDUCED_OR_MASK = 0b101  # NewSubfileType: a smaller copy (1) or a transparency mask (4) of another page


def read_planes(location: Location, size: int, header: BinaryIO | RangeFile, *, all_pages: bool) -> list[Plane]:
    """Read the tags of a TIFF.

    Args:
        location: The file.
        size: Its bytes.
        header: The file, opened for reading its header.
        all_pages: Take every page; else the file is one layer, and only smaller copies or masks may follow it.

    Returns:
        One plane per page; for an RGB page one plane per channel.

    Raises:
        CorruptDataError: The file is truncated or its tags make no sense.
        DataError: Several pages instead of one; a layout, compression or pixel type that is not read.
    """
    try:
        with tifffile.TiffFile(cast("BinaryIO", header), name=location.name) as tiff:
            return _layers(tiff, location, size, all_pages=all_pages)
    except (InkbatchError, MemoryError):
        raise
    except Exception as error:  # tifffile raises whatever damaged tags lead it to
        raise CorruptDataError(
            f"{location}: its TIFF header cannot be read ({type(error).__name__}: {error}); "
            "the file is truncated or damaged, copy it again"
        ) from error


def _layers(tiff: Any, location: Location, size: int, *, all_pages: bool) -> list[Plane]:
    require_one_long_axis(tiff.pages[0].description, location)
    pages = _pages(tiff, all_pages)
    if not all_pages and _has_second_layer(tiff):
        raise DataError(
            f"{location}: expected one layer per file, got several pages; "
            "split it into numbered files, or give that file alone if its pages are the layers"
        )
    promised = _promised_planes(pages[0])
    if promised > 1 and len(pages) == 1 and size >= promised * pages[0].nbytes:
        raise DataError(
            f"{location}: its description promises {promised} planes behind one page (ImageJ or tifffile's short "
            "form); save it with one page per layer, or as numbered files"
        )
    labels = [f"{location}, page {number}" if len(pages) > 1 else str(location) for number in range(len(pages))]
    return [plane for label, page in zip(labels, pages, strict=True) for plane in _planes(location, label, size, page)]


def require_one_long_axis(description: str, location: Location) -> None:
    """Refuse stacks of several channels or times, and files of several images: their pages are not all layers.

    Args:
        description: Description of the first page: ImageJ's lines, OME-XML, or tifffile's JSON. Others say nothing.
        location: The file, for messages.

    Raises:
        DataError: More than one of depth, channels and times exceeds 1, or there are several images.
    """
    if "<OME" in description[:2000]:
        images = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", description)
        if len(images) > 1:
            raise DataError(
                f"{location}: expected one image, its OME metadata list {len(images)}; save the one that you mean as a "
                "file of its own"
            )
        found = [(axis, int(n)) for text in images for axis, n in re.findall(r'\bSize([ZCT])="(\d{1,9})"', text)]
    elif description.startswith("ImageJ="):
        names = {"slices": "Z", "channels": "C", "frames": "T"}
        rows = re.findall(r"^(slices|channels|frames)=(\d{1,9})\s*$", description, re.MULTILINE)
        found = [(names[name], int(n)) for name, n in rows]
    else:
        shape = re.match(r'\{"shape": *\[([\d, ]{1,200})\]', description)
        axes = re.search(r'"axes": *"([A-Z]{1,20})"', description)
        lengths = [int(n) for n in shape[1].split(",")] if shape and axes else []
        found = [(axis, n) for axis, n in zip(axes[1] if axes else "", lengths, strict=False) if axis not in "YXS"]
    long = [(axis, count) for axis, count in found if count > 1]
    if len(long) > 1:
        listed = ", ".join(f"{count} along {axis}" for axis, count in long)
        raise DataError(
            f"{location}: expected one stack of layers, got {listed}: its pages are not all layers; save the channel "
            "and time that you mean as a stack of its own"
        )


def _pages(tiff: Any, all_pages: bool) -> list[Any]:
    """Return the pages that are layers, without the smaller copies and masks that may follow them."""
    first = tiff.pages[0]
    others = (tiff.pages[number] for number in range(1, len(tiff.pages) if all_pages else 1))
    return [first, *(page for page in others if not page.subfiletype & REDUCED_OR_MASK)]


def _has_second_layer(tiff: Any) -> bool:
    try:
        return not tiff.pages[1].subfiletype & REDUCED_OR_MASK
    except IndexError:
        return False


def _promised_planes(page: Any) -> int:
    """Return the number of planes in a description (ImageJ's ``images=``, tifffile's ``shape``), 1 without one."""
    for text in (page.description, page.description1):
        if text.startswith("ImageJ="):
            found = re.search(r"^images=(\d+)\s*$", text, re.MULTILINE)
            return int(found[1]) if found else 1
        found = re.match(r'\{"shape": *\[([\d, ]+)\]', text)
        if found:
            pixels = math.prod(int(length) for length in found[1].split(","))
            return pixels // max(int(math.prod(page.shape)), 1)
    return 1


def _planes(location: Location, label: str, size: int, page: Any) -> Iterator[Plane]:
    samples = int(page.samplesperpixel)
    _require_grey_or_rgb(label, page, samples)
    dtype = _dtype(label, page)
    codec, predictor = _codec(label, page)
    height, width = int(page.imagelength), int(page.imagewidth)
    tiled = bool(page.tilewidth)
    block = (int(page.tilelength), int(page.tilewidth)) if tiled else (int(page.rowsperstrip), width)
    if min(height, width, *block) < 1:
        raise CorruptDataError(f"{label}: its size is {height} x {width}, in blocks of {block}; it holds no pixels")
    separate = samples > 1 and int(page.planarconfig) == 2
    offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
    per_channel = -(-height // block[0]) * -(-width // block[1])
    expected = per_channel * (samples if separate else 1)
    if len(offsets) != expected or len(counts) != expected:
        raise CorruptDataError(
            f"{label}: expected {expected} strips or tiles for {height} x {width} pixels, its tags list "
            f"{len(offsets)} places and {len(counts)} sizes; the file is damaged, copy it again"
        )
    for sample in range(samples):
        part = slice(sample * per_channel, (sample + 1) * per_channel) if separate else slice(None)
        plane = Plane(
            location=location,
            label=label,
            shape_yx=(height, width),
            dtype=dtype,
            codec=codec,
            predictor=predictor,
            block_yx=block,
            padded=tiled,
            offsets=offsets[part],
            counts=counts[part],
            samples=1 if separate else samples,
            sample=0 if separate else sample,
        )
        _require_whole(plane, size)
        yield plane


def _require_grey_or_rgb(label: str, page: Any, samples: int) -> None:
    photometric = int(page.photometric)
    if int(page.imagedepth) != 1:
        raise DataError(
            f"{label}: expected a plane, this page is a block of depth {page.imagedepth}; save one page per layer"
        )
    if int(page.fillorder) != 1:
        raise DataError(f"{label}: its bits are stored in reversed order; save it again with the usual order")
    orientation = page.tags.valueof(ORIENTATION_TAG, 1)
    if orientation not in UPRIGHT:
        raise DataError(
            f"{label}: expected rows from the top and columns from the left, its orientation tag is {orientation}, "
            "which some programs obey and others ignore; turn the pixels and save it again without that tag"
        )
    if photometric == BLACK_IS_ZERO and samples == 1:
        return
    if photometric == RGB and samples == 3:
        return
    if page.extrasamples or samples in (2, 4):
        raise DataError(
            f"{label}: expected grey or RGB, got {samples} samples per pixel, of which some are alpha or extra; "
            "remove the alpha channel"
        )
    kind = getattr(page.photometric, "name", str(photometric))
    raise DataError(
        f"{label}: expected grey levels with black as zero (or RGB), its pixels mean {kind} with "
        f"{count_text(samples, 'sample')}; save it again as greyscale"
    )


def _dtype(label: str, page: Any) -> np.dtype[Any]:
    name = page.dtype.name if page.dtype is not None else f"{page.bitspersample} bits, format {page.sampleformat}"
    usual = {"uint8": 8, "uint16": 16, "float32": 32}
    if name not in usual or page.bitspersample != usual[name]:
        raise DataError(
            f"{label}: expected uint8, uint16 or float32 pixels, got {name} ({page.bitspersample} bits); "
            "convert the layers"
        )
    return np.dtype(name).newbyteorder(page.parent.byteorder)


def _codec(label: str, page: Any) -> tuple[str, int]:
    codec, predictor = CODEC_NAMES.get(int(page.compression), ""), int(page.predictor)
    if codec != "none" and codec not in DECODERS:
        known = ", ".join(["none", *DECODERS])
        raise DataError(
            f"{label}: compression {getattr(page.compression, 'name', page.compression)} is not read; "
            f"save it again with one of: {known}"
        )
    if codec == "none":
        return codec, NO_PREDICTOR  # the tag has a meaning for compressed data only
    if predictor not in (NO_PREDICTOR, FLOATING if page.dtype.kind == "f" else HORIZONTAL):
        raise DataError(f"{label}: predictor {predictor} of {page.dtype} pixels is not read; save it again without one")
    return codec, predictor


def _require_whole(plane: Plane, size: int) -> None:
    """Refuse blocks that lie outside the file, were never written, or are too short to hold their pixels."""
    ends = plane.offsets + plane.counts
    outside = np.flatnonzero((plane.offsets < 0) | (ends > size))
    if outside.size:
        raise CorruptDataError(
            f"{plane.label}: the file is truncated: it has {size} bytes, block {outside[0]} of {plane.block_count} "
            f"ends at {ends[outside[0]]}; copy it again"
        )
    unwritten = np.flatnonzero((plane.counts == 0) | (plane.offsets == 0))
    if unwritten.size:
        raise CorruptDataError(
            f"{plane.label}: {unwritten.size} of {plane.block_count} blocks were never written (the first is "
            f"{unwritten[0]}); the writer was stopped, or the file is sparse: write it again in full"
        )
    most = MOST_RATIO.get(plane.codec)
    if most is not None:
        swollen = np.flatnonzero(plane.counts < plane.block_bytes // (2 * most))
        if swollen.size > 1 or (swollen.size and plane.block_count == 1):
            raise CorruptDataError(
                f"{plane.label}: block {swollen[0]} of {plane.block_count} has {plane.counts[swollen[0]]} bytes, which "
                f"cannot hold the {plane.block_bytes:,} that its tags promise; the file is damaged, copy it again"
            )
    if plane.codec == "none":
        wanted = plane.decoded_counts
        short = np.flatnonzero(plane.counts < wanted)
        if short.size:
            raise CorruptDataError(
                f"{plane.label}: block {short[0]}: expected {wanted[short[0]]} bytes, got {plane.counts[short[0]]}; "
                "the file is damaged, copy it again"
            )
