"""Contract that the segments of a dataset share, so that one network can be fed with all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inkbatch.data.datasets.index import DatasetSegment, SurfaceContract
from inkbatch.errors import MismatchError
from inkbatch.io.layers.spacing import VOXEL_TOLERANCE
from inkbatch.io.surface import SurfaceVolume

RAW_RULES = ("keep", "high-byte")  # 8-bit scans hold the high byte of the 16-bit ones


def surface_contract(segments: Sequence[DatasetSegment], surfaces: dict[str, SurfaceVolume]) -> SurfaceContract:
    """Derive the contract that all segments share.

    Args:
        segments: At least one.
        surfaces: By segment id, those that are prepared; pictures are 8 bits as they are.

    Raises:
        MismatchError: Two segments differ in what a network sees; both are named.
    """
    first = segments[0]
    contract = _of(first, surfaces.get(first.id))
    rules = set(contract.intensity)
    for segment in segments[1:]:
        other = _of(segment, surfaces.get(segment.id))
        for key in ("dtype", "lut", "clahe", "layer_count"):
            _require_equal(key, first, getattr(contract, key), segment, getattr(other, key))
        _require_equal("intensity", first, _kind(contract.intensity[0]), segment, _kind(other.intensity[0]))
        for key, one, two in (
            ("voxel_size_um", contract.voxel_size_um, other.voxel_size_um),
            ("z_spacing_um", contract.layer_um, other.layer_um),
        ):
            if not _same_scale(one, two):
                _require_equal(key, first, one, segment, two)
        rules |= set(other.intensity)
    return contract.model_copy(update={"intensity": tuple(sorted(rules))})


def _same_scale(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(other / one - 1) <= VOXEL_TOLERANCE


def _of(segment: DatasetSegment, surface: SurfaceVolume | None) -> SurfaceContract:
    if surface is None:
        return SurfaceContract(
            dtype="uint8",
            intensity=("keep",),
            clahe=segment.clahe.model_dump() if segment.clahe else None,
            voxel_size_um=segment.voxel_size_um,
            layer_count=segment.layer_count,
        )
    made = surface.provenance
    return SurfaceContract(
        dtype="uint8" if surface.dtype.itemsize == 1 else "uint16",
        intensity=(made.intensity,),
        lut=made.lut,
        clahe=made.clahe.model_dump() if made.clahe else None,
        voxel_size_um=made.voxel_size_um,
        z_spacing_um=made.z_spacing_um,
        layer_count=segment.layer_count,
    )


def _kind(rule: str) -> str:
    return "keep or high-byte" if rule in RAW_RULES else rule.partition(":")[0]


def _require_equal(key: str, first: DatasetSegment, wanted: Any, segment: DatasetSegment, found: Any) -> None:
    if wanted != found:
        raise MismatchError(
            f"segment {segment.id}: expected {key} {wanted} as in segment {first.id}, got {found}; one network "
            "cannot take "
            "both, prepare them alike (or choose the same number of layers)"
        )
