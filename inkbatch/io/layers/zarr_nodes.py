"""Metadata of zarr folders (v2, v3, OME-Zarr 0.4 and 0.5): array or group, axes, levels, voxel size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.io.ome import Spacing, ome_spacing
from inkbatch.io.store.faults import ForbiddenError
from inkbatch.io.store.location import Location
from inkbatch.io.threads import opening_pool

METADATA_NAMES = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
AXIS_LETTERS = "tczyx"


@dataclass(frozen=True)
class ZarrNode:
    """A zarr array or group whose metadata has been read.

    Attributes:
        location: Its folder.
        zarr_format: 2 or 3.
        is_array: Array, else group.
        attributes: User attributes (``.zattrs``, or ``attributes`` in ``zarr.json``).
        metadata: The array's own metadata; empty for a group.
    """

    location: Location
    zarr_format: Literal[2, 3]
    is_array: bool
    attributes: Mapping[str, Any]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class ChosenArray:
    """The array to read, and what is known of it.

    Attributes:
        node: The array.
        axes: One letter per dimension, such as ``zyx`` or ``tczyx``.
        spacing: Micrometres along z, y and x, as far as they are stated.
    """

    node: ZarrNode
    axes: str
    spacing: Spacing


def find_node(location: Location) -> ZarrNode | None:
    """Read a folder's zarr metadata; None where it has none.

    Raises:
        CorruptDataError: Metadata that are no JSON object, or that are neither an array's nor a group's.
    """
    places = [location / name for name in METADATA_NAMES]
    answers = [_object(place) for place in places] if location.is_local else opening_pool.map(_object, places)
    found = dict(zip(METADATA_NAMES, answers, strict=True))
    refusals = [answer for answer in answers if isinstance(answer, ForbiddenError)]
    documents = {name: answer for name, answer in found.items() if isinstance(answer, dict)}
    if "zarr.json" in documents:
        document = documents["zarr.json"]
        kind = document.get("node_type")
        if kind not in ("array", "group"):
            raise CorruptDataError(f"{location}: zarr.json is neither an array's nor a group's; write the array again")
        attributes = document.get("attributes") or {}
        return ZarrNode(location, 3, kind == "array", attributes, document if kind == "array" else {})
    attributes = documents.get(".zattrs", {})
    if ".zarray" in documents:
        return ZarrNode(location, 2, True, attributes, documents[".zarray"])
    if ".zgroup" in documents or "multiscales" in attributes:
        return ZarrNode(location, 2, False, attributes, {})
    if len(refusals) == len(places):
        raise refusals[0]
    return None


def _object(place: Location) -> dict[str, Any] | ForbiddenError | None:
    try:
        value = place.read_json()
    except FileNotFoundError:
        return None
    except ForbiddenError as error:  # stores that may not be listed say so of names that do not exist
        return error
    if not isinstance(value, dict):
        raise CorruptDataError(f"{place}: expected a JSON object, got a {type(value).__name__}; write it again")
    return value


def choose_array(node: ZarrNode, axes: str | None, level: int | None) -> ChosenArray:
    """Find the array to read and the meaning of its dimensions; nothing is guessed.

    Args:
        node: An array, or an OME-Zarr group.
        axes: What the user states, or None.
        level: Level of the pyramid, 0 is full resolution; None: 0. An array has no levels.

    Raises:
        ConfigError: A level that is not there, axes that are unknown or do not fit the array.
        DataError: A group without levels; damaged OME metadata.
        MismatchError: User and metadata state different axes.
    """
    if node.is_array:
        if level is not None:
            raise ConfigError(
                f"{node.location}: expected a group with level {level}, got one array; give the group that holds it"
            )
        return ChosenArray(node, _chosen_axes(node, axes, _array_axes(node)), Spacing())
    image = _multiscale(node)
    stated = _axis_names(image.get("axes"))
    datasets = _datasets(node, image)
    number = level or 0
    if not 0 <= number < len(datasets):
        raise ConfigError(
            f"{node.location}: expected a level from 0 to {len(datasets) - 1}, got {number}; choose one of them"
        )
    array = find_node(node.location / datasets[number]["path"])
    if array is None or not array.is_array:
        raise DataError(
            f"{node.location}: expected level {number} in {datasets[number]['path']!r}, got no array there; "
            "copy the group again"
        )
    chosen_axes = _chosen_axes(array, axes, stated or _array_axes(array))
    return ChosenArray(array, chosen_axes, ome_spacing(image, number, stated, node.attributes))


def usual_axes(node: ZarrNode) -> str | None:
    """Return the axes of a plain array whose metadata name none: rows and columns, layers first; None where they do."""
    shape = node.metadata.get("shape")
    if not node.is_array or _array_axes(node) or not isinstance(shape, list):
        return None
    return {2: "yx", 3: "zyx"}.get(len(shape))


def level_count(node: ZarrNode) -> int:
    """Count the levels that an OME-Zarr group names.

    Raises:
        DataError: A group without levels; damaged OME metadata.
    """
    return len(_datasets(node, _multiscale(node)))


def level_shapes(node: ZarrNode) -> list[tuple[int, ...]]:
    """Return the shapes of an OME-Zarr group's levels, full resolution first; those that are missing are left out."""
    arrays = (find_node(node.location / dataset["path"]) for dataset in _datasets(node, _multiscale(node)))
    return [tuple(array.metadata["shape"]) for array in arrays if array is not None and array.is_array]


def _datasets(node: ZarrNode, image: Mapping[str, Any]) -> list[dict[str, Any]]:
    datasets = image.get("datasets")
    if not isinstance(datasets, list) or not datasets or not all(_is_dataset(dataset) for dataset in datasets):
        raise DataError(f"{node.location}: its OME metadata name no levels (datasets); write the group again")
    return datasets


def _is_dataset(dataset: Any) -> bool:
    return isinstance(dataset, dict) and isinstance(dataset.get("path"), str)


def _multiscale(node: ZarrNode) -> Mapping[str, Any]:
    ome = node.attributes.get("ome", node.attributes)
    images = ome.get("multiscales") if isinstance(ome, dict) else None
    if not isinstance(images, list) or not images or not isinstance(images[0], dict):
        members = ", ".join(name for name in node.location.names() if not name.startswith(".") and name != "zarr.json")
        raise DataError(
            f"{node.location}: expected an array or an OME-Zarr image, got a plain group "
            f"(it holds: {members or 'nothing that can be listed'}); give the array itself, {node.location}/NAME"
        )
    if len(images) > 1:
        raise DataError(
            f"{node.location}: expected one image, its OME metadata list {len(images)}; give the array "
            f"itself, {node.location}/NAME"
        )
    return images[0]


def _axis_names(axes: Any) -> tuple[str, ...] | None:
    """Read axis names from OME metadata: objects with a name (0.4, 0.5) or plain text (0.3)."""
    if not isinstance(axes, list) or not axes:
        return None
    names = [axis.get("name") if isinstance(axis, dict) else axis for axis in axes]
    texts = tuple(name for name in names if isinstance(name, str))
    return texts if len(texts) == len(names) else None


def _array_axes(node: ZarrNode) -> tuple[str, ...] | None:
    """Read the dimension names of the array itself: zarr v3's own, or xarray's habit in v2."""
    names = node.metadata.get("dimension_names") or node.attributes.get("_ARRAY_DIMENSIONS")
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None


def _chosen_axes(array: ZarrNode, wanted: str | None, stated: Sequence[str] | None) -> str:
    shape = array.metadata.get("shape")
    if not isinstance(shape, list):
        raise CorruptDataError(f"{array.location}: its metadata state no shape; write the array again")
    names = [name.lower() for name in stated] if stated else []
    known = "".join(names) if names and all(len(name) == 1 and name in AXIS_LETTERS for name in names) else None
    if wanted is not None and known is not None and wanted != known:
        raise MismatchError(
            f"{array.location}: got axes {wanted!r}, but its metadata state {known!r}; "
            "drop axes to trust the metadata, or correct them"
        )
    axes = wanted or known
    if axes is None:
        seen = f"its dimensions are named {list(stated)}" if stated else "its metadata name none"
        raise ConfigError(
            f"{array.location}: the order of its axes is unknown and is never guessed: {seen} (shape {shape}); "
            "give axes, for example axes=zyx for (layers, rows, columns), or open the OME-Zarr group above the array"
        )
    if len(axes) != len(shape) or len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes) <= set(AXIS_LETTERS):
        raise ConfigError(
            f"{array.location}: axes {axes!r} do not fit an array of shape {shape}; "
            "give one letter of t, c, z, y, x per dimension, y and x among them"
        )
    for axis, length in zip(axes, shape, strict=True):
        if axis in "tc" and length != 1:
            raise DataError(
                f"{array.location}: expected one volume, axis {axis!r} has {length} entries (shape {shape}, "
                f"axes {axes}); extract the one you mean into its own array"
            )
    return axes
