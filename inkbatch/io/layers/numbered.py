"""Folders of numbered layer files, and single files: layers in their order, checked for agreement."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import TypeVar

from inkbatch.config import digest
from inkbatch.errors import CorruptDataError, DataError, MismatchError
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.cached import DecodedLayers
from inkbatch.io.layers.files import open_header
from inkbatch.io.layers.pictures import JPG_MAGIC, PNG_MAGIC, Picture, PictureStack, read_picture
from inkbatch.io.layers.planes import Plane
from inkbatch.io.layers.stack import PlaneStack
from inkbatch.io.layers.tiff import TIFF_MAGIC, read_planes
from inkbatch.io.store.location import Location
from inkbatch.io.threads import opening_pool
from inkbatch.text import count_text

LAYER_NAME = re.compile(r"([0-9]+)\.(?:tiff?|png|jpe?g)", re.IGNORECASE)
UNFINISHED = re.compile(rf"\.?{LAYER_NAME.pattern}(?:\.\w+|~)", re.IGNORECASE)
MAGIC_BYTES = 16
HUGE_BLOCK_SHARE = 8  # a strip of more than an eighth of the budget is decoded once and kept
LEAST_BYTES = 16 << 20  # smaller pictures and tiles are decoded whatever the budget says

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Keeping:
    """Limits for keeping whole layers once they are decoded.

    Attributes:
        memory_bytes: Budget of the process.
        scratch: Folder on a local disk, or None for the system's folder for temporary files.
    """

    memory_bytes: int
    scratch: str | None


def numbered_files(
    folder: Location, sizes: Mapping[str, int | None], folders: Sequence[str] = ()
) -> tuple[int, list[tuple[Location, int | None]]]:
    """Find the layers in a folder: files whose stem is a number, ``00.tif``, ``7.PNG``, ``012.jpeg``.

    Everything else is ignored: hidden files, notes, masks, and pictures whose stem is not a number alone.

    Args:
        folder: The folder, for messages.
        sizes: Its files and their bytes.
        folders: Names of the folders in it.

    Returns:
        The smallest number, and the files in the order of their numbers.

    Raises:
        DataError: No such file, two files for one number, a number missing in between, or a folder in place of a file.
    """
    found: dict[int, str] = {}
    for name in sorted(sizes):
        match = LAYER_NAME.fullmatch(name)
        if match is None:
            continue
        number = int(match[1])
        if number in found:
            raise DataError(
                f"{folder}: expected one file per layer, but {found[number]!r} and {name!r} both claim layer {number}; "
                "remove one of them"
            )
        found[number] = name
    if found and folders:
        named = next((name for name in sorted(folders) if LAYER_NAME.fullmatch(name)), None)
        if named is not None:
            raise DataError(
                f"{folder}: expected a file for each layer, but {named!r} is a folder; copy that layer again, or move "
                "the folder away"
            )
    if not found:
        seen = ", ".join(repr(name) for name in sorted(sizes)[:3]) or "nothing"
        raise DataError(
            f"{folder}: expected layers in files named by their number (00.tif, 01.tif, …; TIFF, PNG or JPG), got "
            f"{count_text(len(sizes), 'file')} and none such ({seen}{', …' if len(sizes) > 3 else ''}); "
            "check the location, or rename the layers"
        )
    numbers = sorted(found)
    first, last = numbers[0], numbers[-1]
    gaps = (range(before + 1, after) for before, after in pairwise(numbers))
    missing = list(islice(chain.from_iterable(gaps), 6))
    if missing:
        named = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise DataError(
            f"{folder}: expected every layer from {first} to {last}, {last - first + 1 - len(found)} missing: "
            f"{named}; fetch them, or move the layers beyond the gap away"
        )
    return first, [(folder / found[number], sizes[found[number]]) for number in numbers]


def _notes(first: int, count: int, names: Iterable[str]) -> tuple[str, ...]:
    """Say the numbers of the layers: no gap shows where the first or the last ones are missing."""
    below = f"; none has number {first - 1}: if the surface begins there, fetch it" if first else ""
    cut_off = [name for name in sorted(names) if UNFINISHED.match(name)]
    left = f"; {cut_off[0]!r} looks like a copy that did not end" if cut_off else ""
    return (f"{count_text(count, 'layer')}, numbered {first} to {first + count - 1}{below}{left}",)


def open_folder(folder: Location, sizes: Mapping[str, int | None], keeping: Keeping) -> LayerSource:
    """Open a folder of numbered layers: headers only, concurrently where it is remote.

    Raises:
        DataError: See `numbered_files`; layers of several formats, shapes or dtypes; RGB layers.
        CorruptDataError: A file is truncated, or is no picture.
    """
    folders = [name for name in folder.names() if name not in sizes] if folder.is_local else []
    first, files = numbered_files(folder, sizes, folders)
    opened = _each(files, lambda file: _open_file(file[0], file[1], all_pages=False), remote=not folder.is_local)
    for layer in opened:
        if layer[0].samples > 1 or len(layer) > 1:
            raise DataError(f"{layer[0].location}: expected a grey layer, got RGB; convert the layers to one channel")
    layers = [layer[0] for layer in opened]
    _require_agreement(folder, layers)
    source = _source(str(folder), layers, first, keeping)
    source.fingerprint = digest([[place.name, place.size() if size is None else size] for place, size in files])
    source.notes = _notes(first, len(files), sizes)
    return source


def open_file(location: Location, keeping: Keeping) -> LayerSource:
    """Open one file: pages of a TIFF are its layers, a grey picture is one layer, channels of an RGB picture are three.

    Raises:
        DataError: RGB pages in a TIFF of several pages; pages that differ.
        CorruptDataError: The file is truncated, or is no picture.
    """
    size = location.size()
    layers = _open_file(location, size, all_pages=True)
    pages = {layer.name for layer in layers}
    if len(pages) > 1 and len(layers) > len(pages):
        raise DataError(f"{location}: expected grey pages, some are RGB; convert them to one channel")
    _require_agreement(location, layers)
    source = _source(str(location), layers, 0, keeping)
    source.channels = len(layers) if len(pages) == 1 else 1
    source.fingerprint = digest([[location.name, size]])
    return source


def _each(items: Sequence[Item], action: Callable[[Item], Result], *, remote: bool) -> list[Result]:
    """Apply `action` to all; on remote stores many at once, since each one mostly waits."""
    return opening_pool.map(action, items) if remote and len(items) > 1 else [action(item) for item in items]


def _open_file(location: Location, size: int | None, *, all_pages: bool) -> Sequence[Plane] | Sequence[Picture]:
    """Read a file's header; its first bytes decide about the format, not its name."""
    size = location.size() if size is None else size
    with open_header(location, size) as header:
        start = header.read(MAGIC_BYTES) or b""
        header.seek(0)
        if start.startswith(TIFF_MAGIC):
            return read_planes(location, size, header, all_pages=all_pages)
        if start.startswith((PNG_MAGIC, JPG_MAGIC)):
            return [read_picture(location, size, header)]
    finding = f"it starts with {start[:8]!r}" if start else "it is empty"
    raise CorruptDataError(f"{location}: expected a TIFF, PNG or JPG, but {finding}; fetch it again, or remove it")


def _require_agreement(place: Location, layers: Sequence[Plane | Picture]) -> None:
    first = layers[0]
    for layer in layers[1:]:
        if type(layer) is not type(first):
            raise MismatchError(
                f"{place}: expected layers of one format, but {first.name} is a {first.format} and {layer.name} a "
                f"{layer.format}; convert them to one"
            )
        for what, ours, theirs in (
            ("size (height, width)", layer.shape_yx, first.shape_yx),
            ("dtype", layer.dtype.name, first.dtype.name),
        ):
            if ours != theirs:
                raise MismatchError(
                    f"{place}: expected layers of one {what}, but {first.name} has {theirs} and {layer.name} has "
                    f"{ours}; remove what does not belong to this stack, or convert it"
                )


def _require_fitting(uri: str, layers: Sequence[Plane | Picture], memory_bytes: int) -> None:
    """Refuse pictures, strips and tiles that cannot be decoded within the budget."""
    for layer in layers:
        needed = layer.unpacked_bytes
        if needed > max(memory_bytes, LEAST_BYTES):
            raise DataError(
                f"{uri}: {layer.name} unpacks to {needed:,} bytes at once, more than the memory budget of "
                f"{memory_bytes:,}; allow more memory, or store it in smaller tiles"
            )


def _source(uri: str, layers: Sequence[Plane | Picture], first: int, keeping: Keeping) -> LayerSource:
    planes = [layer for layer in layers if isinstance(layer, Plane)]
    _require_fitting(uri, layers, keeping.memory_bytes)
    if not planes:
        pictures = PictureStack(uri, [layer for layer in layers if isinstance(layer, Picture)], first)
        return DecodedLayers(pictures, keeping.memory_bytes, keeping.scratch)
    stack = PlaneStack(uri, planes, first)
    if stack.has_single_block_layers or stack.largest_block_bytes * HUGE_BLOCK_SHARE > keeping.memory_bytes:
        return DecodedLayers(stack, keeping.memory_bytes, keeping.scratch)
    return stack
