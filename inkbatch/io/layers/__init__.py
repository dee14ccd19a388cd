"""Readers of layer stacks: numbered TIFF, PNG or JPG files, single pictures, zarr arrays, OME-Zarr, npy.

`open_layer_source` looks at what is there; neither axes nor depth order nor missing layers are ever guessed.
"""

from __future__ import annotations

import os

from inkbatch.errors import ConfigError, DataError
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.numbered import MAGIC_BYTES, Keeping, open_file, open_folder
from inkbatch.io.store.faults import MissingObjectError
from inkbatch.io.store.location import Location

__all__ = ["LayerSource", "may_be_file", "open_layer_source"]

FILE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".npy")
DEFAULT_MEMORY_BYTES = 2 << 30


def open_layer_source(
    uri: str,
    *,
    axes: str | None = None,
    level: int | None = None,
    array: str | None = None,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    scratch: str | None = None,
) -> LayerSource:
    """Open a stack of layers; only headers are read.

    The content decides about the format: zarr metadata, numbered layer files in a folder, or the first bytes of a file.

    Args:
        uri: Folder, file, zarr array or OME-Zarr group: local, ``s3://``, ``http(s)://`` (with range requests) or
            ``memory://``.
        axes: Meaning of the dimensions of a zarr or npy array, such as ``zyx`` or ``yxz``. Layer files are ``zyx``.
        level: Level of an OME-Zarr pyramid; None: full resolution.
        array: Path of the array (or image) inside a zarr group.
        memory_bytes: Budget of the process; layers that can only be decoded whole are kept in a third of it.
        scratch: Folder on a local disk for layers that are decoded whole and do not fit memory; None: the system's
            folder for temporary files.

    Raises:
        ConfigError: Axes that are missing or do not fit, a level that is not there, an option that does not apply.
        DataError: Nothing is there, it is none of these, or its layers have gaps, doubles, or do not agree.
        CorruptDataError: A file is truncated, or is no picture.
    """
    location = Location.parse(uri)
    axes = _checked_axes(axes)
    keeping = Keeping(memory_bytes, os.fspath(scratch) if scratch is not None else None)
    if array is None and may_be_file(location):
        try:
            return _open_single(location, axes, level, keeping)
        except (MissingObjectError, IsADirectoryError):
            if location.is_local:
                raise
    source = _open_zarr_at(location / array if array else location, axes, level, keeping)
    if source is not None:
        return source
    if array is not None:
        raise DataError(f"{location}: expected an array {array!r}, got none; check its path inside the group")
    sizes = location.sizes()
    if sizes or (location.is_local and os.path.isdir(location.path)):
        _require_plain(location, axes, level)
        return open_folder(location, sizes, keeping)
    return _open_unnamed(location, axes, level, keeping)


def may_be_file(location: Location) -> bool:
    """Tell whether to look for a file first; on remote stores a file's name saves asking for zarr metadata."""
    if location.is_local:
        return os.path.isfile(location.path)
    return location.name.lower().endswith(FILE_SUFFIXES)


def _open_single(location: Location, axes: str | None, level: int | None, keeping: Keeping) -> LayerSource:
    from inkbatch.io.layers.npy import NPY_MAGIC, open_npy

    start = location.read_range(0, min(location.size(), MAGIC_BYTES))
    if start.startswith(NPY_MAGIC):
        _require_plain(location, "zyx", level)
        return open_npy(location, axes)
    _require_plain(location, axes, level)
    return open_file(location, keeping)


def _open_zarr_at(location: Location, axes: str | None, level: int | None, keeping: Keeping) -> LayerSource | None:
    from inkbatch.io.layers.zarr_nodes import choose_array, find_node

    node = find_node(location)
    if node is None:
        return None
    from inkbatch.io.layers.zarr_layers import open_zarr  # zarr: only where it is used

    return open_zarr(choose_array(node, axes, level), keeping)


def _open_unnamed(location: Location, axes: str | None, level: int | None, keeping: Keeping) -> LayerSource:
    """Open a file whose name does not show its format; refuse a place where nothing is."""
    try:
        return _open_single(location, axes, level, keeping)
    except (MissingObjectError, IsADirectoryError) as error:
        listing = "; a web server must list the folder, or serve zarr" if location.protocol.startswith("http") else ""
        raise DataError(
            f"{location}: expected layers (a folder of 00.tif, 01.tif, …, a picture, or zarr), got nothing; "
            f"check the location{listing}"
        ) from error


def _checked_axes(axes: str | None) -> str | None:
    if axes is None:
        return None
    text = axes.replace(",", "").replace(" ", "").lower()
    if not text or not set(text) <= set("tczyx") or len(set(text)) != len(text):
        raise ConfigError(f"axes {axes!r}: expected letters of t, c, z, y, x, each at most once, such as zyx")
    return text


def _require_plain(location: Location, axes: str | None, level: int | None) -> None:
    """Refuse options that would be ignored."""
    if axes not in (None, "zyx"):
        raise ConfigError(f"{location}: expected axes zyx, as layer files always have, got {axes!r}; drop axes")
    if level not in (None, 0):
        raise ConfigError(f"{location}: got level {level}, but only an OME-Zarr group has levels; drop level")
