"""The contract guard of infer as a table: what the bundle promised, what the surface says, where they met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inkbatch.io.surface import SurfaceVolume
from inkbatch.reports.page import Promise

UNKNOWN = "not under this ROOT; compared when the job began"
COMPARED = "compared before the network was built"


def promises(config: Mapping[str, Any], volume: SurfaceVolume | None) -> tuple[Promise, ...]:
    """The rows of the table.

    Args:
        config: The manifest's ``config``; its contract has all overrides.
        volume: The surface; None where it is not at hand.
    """
    said = volume.provenance if volume else None
    contract, override = config["contract"], config.get("override", {})

    def row(key: str, what: str, promised: str, found: str | None, where: str) -> Promise:
        if key in override and "probe" not in config:
            return Promise(what, promised, found or UNKNOWN, f"overridden by hand: {key}={override[key]}", kept=False)
        return Promise(what, promised, found or UNKNOWN, where)

    first, stop = config["layers"]
    flipped = contract["depth_order"] == "reversed"
    rows = [
        row(
            "layers",
            "layers",
            f"{contract['layers']['count']}"
            + (
                f", source {_range(contract['layers']['source_range'])}"
                if contract["layers"].get("source_range")
                else ", centred"
            ),
            _layers_found(first, stop, volume),
            "cut out on reading; never clamped",
        ),
        row(
            "depth_order",
            "depth order",
            contract["depth_order"],
            "forward: prepared layers always run in depth order"
            + (", the source was turned round" if said and said.depth_order == "reversed" else ""),
            "turned round on reading, for this network" if flipped else "fed as it lies",
        ),
        row("dtype", "dtype", contract["dtype"], volume.dtype.name if volume else None, COMPARED),
        row(
            "intensity",
            "grey values",
            " or ".join(contract["intensity"]),
            said.intensity if said else None,
            f"on preparing; {COMPARED}",
        ),
        row(
            "voxel_size_um",
            "voxel size",
            f"{contract['voxel_size_um']:g} µm ± {contract['voxel_tolerance']:.0%}",
            f"{said.voxel_size_um:g} µm" if said else None,
            COMPARED,
        ),
        row("lut", "lookup table", _or_none(contract["lut"]), _or_none(said.lut) if said else None, COMPARED),
        row(
            "clahe",
            "CLAHE",
            _or_none(contract["clahe"]),
            _or_none(said.clahe and said.clahe.model_dump()) if said else None,
            COMPARED,
        ),
        row("divisor", "input values", _scaling(contract), "the same", "done to every tile on the device, in float32"),
        row(
            "tile_px",
            "tiles",
            f"{contract['tile_px']} px every {contract['stride_px']} px, {contract['window']} window",
            "the same",
            "one grid over the whole segment; overlapping answers are blended",
        ),
        row(
            "threshold",
            "threshold",
            _threshold(contract),
            "the same",
            "marks ink on this page and in exports; the map is stored as it is",
        ),
    ]
    return tuple(rows)


def override_words(key: str, value: Any, *, probed: bool) -> str:
    """What a reader has to know of a replaced value of the contract."""
    if probed and key == "depth_order":
        return f"The depth order ({value}) was found by a depth probe, not stated by the bundle."
    if key in ("stride_px", "window"):
        return (
            f"{key}={value} was asked for in place of the bundle's value; the map is not what its scores were taken on."
        )
    return (
        f"The bundle's contract was overridden: {key}={value}. The network was fed something else than it was trained "
        "on; a plausible picture proves nothing here."
    )


def _layers_found(first: int, stop: int, volume: SurfaceVolume | None) -> str:
    if volume is None:
        return f"{stop - first}"
    low, high = volume.provenance.numbers_of(range(first, stop))
    return f"{stop - first} of {volume.layer_count}: source layers {low}:{high}"


def _range(bounds: Any) -> str:
    return f"{bounds[0]}:{bounds[1]}"


def _or_none(value: Any) -> str:
    return "none" if value is None else str(value)


def _scaling(contract: Mapping[str, Any]) -> str:
    words = f"clipped to {contract['clip'][0]:g} … {contract['clip'][1]:g}, " if contract["clip"] else ""
    words += f"divided by {contract['divisor']:g}"
    if contract["mean"] or contract["std"] != 1:
        words += f", less {contract['mean']:g}, divided by {contract['std']:g}"
    return words


def _threshold(contract: Mapping[str, Any]) -> str:
    if contract["threshold"] is None:
        return "none stated"
    fitted = contract["threshold_fitted_on"]
    return f"{contract['threshold']:g}" + (f", fitted on {fitted}" if fitted else "")
