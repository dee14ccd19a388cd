"""Table of infer's contract guard: the bundle's promise, the surface's value, and the place of the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inkbatch.io.surface import SurfaceVolume
from inkbatch.reports.page import Promise
from inkbatch.steps.infer.choices import chosen, replaced

UNKNOWN = "not under this ROOT; compared when the job began"
COMPARED = "compared before the network was built"


def promises(config: Mapping[str, Any], volume: SurfaceVolume | None) -> tuple[Promise, ...]:
    """Make the rows of the table.

    Args:
        config: The manifest's ``config``; its contract has all overrides.
        volume: The surface; None if it is not available.
    """
    said = volume.provenance if volume else None
    contract, by_hand = config["contract"], replaced(config)

    def row(what: str, promised: str, found: str | None, where: str, keys: tuple[str, ...]) -> Promise:
        bent = [f"{key}={value}" for key, value in by_hand.items() if key.partition(".")[0] in keys]
        if bent:
            return Promise(what, f"not the bundle's own: {promised}", found or UNKNOWN, _bent(bent), kept=False)
        return Promise(what, promised, found or UNKNOWN, where)

    first, stop = config["layers"]
    flipped = contract["depth_order"] == "reversed"
    source_range = contract["layers"].get("source_range")
    turned = ", the source was turned round" if said and said.depth_order == "reversed" else ""
    asked = [f"{key}={value}" for key, value in chosen(config).items()]
    grid = "one grid over the whole segment; overlapping answers are blended"
    return (
        row(
            "layers",
            f"{contract['layers']['count']}, " + (f"source {_range(source_range)}" if source_range else "centred"),
            _layers_found(first, stop, volume),
            "cut out on reading; never clamped",
            ("layers",),
        ),
        row(
            "depth order",
            contract["depth_order"],
            f"forward: prepared layers always run in depth order{turned}",
            "turned round on reading, for this network" if flipped else "fed in this order",
            ("depth_order",),
        ),
        row("dtype", contract["dtype"], volume.dtype.name if volume else None, COMPARED, ("dtype",)),
        row(
            "grey values",
            " or ".join(contract["intensity"]),
            said.intensity if said else None,
            f"on preparing; {COMPARED}",
            ("intensity",),
        ),
        row(
            "voxel size",
            f"{_size(contract['voxel_size_um'], contract.get('z_spacing_um'))} ± {contract['voxel_tolerance']:.0%}",
            _size(said.voxel_size_um, said.z_spacing_um) if said else None,
            COMPARED,
            ("voxel_size_um", "z_spacing_um", "voxel_tolerance"),
        ),
        row("lookup table", _or_none(contract["lut"]), _or_none(said.lut) if said else None, COMPARED, ("lut",)),
        row(
            "CLAHE",
            _or_none(contract["clahe"]),
            _or_none(said.clahe and said.clahe.model_dump()) if said else None,
            COMPARED,
            ("clahe",),
        ),
        row(
            "input values",
            _scaling(contract),
            "the same",
            "done to every tile on the device, in float32",
            ("clip", "divisor", "scaling", "mean", "std", "normaliser"),
        ),
        row(
            "tiles",
            f"{contract['tile_px']} px every {contract['stride_px']} px, {contract['window']} window{_rules(contract)}",
            "the same",
            f"{grid}; asked for by this run: {', '.join(asked)}" if asked else grid,
            ("tile_px", "activation", "stitching"),
        ),
        row(
            "threshold",
            _threshold(contract),
            "the same",
            "marks ink on this page and in exports; the map is stored as it is",
            ("threshold",),
        ),
    )


def override_words(key: str, value: Any) -> str:
    """Warn of a replaced value of the contract."""
    return (
        f"The bundle's contract was overridden: {key}={value}. The network was fed something else than it was trained "
        "on; a plausible picture proves nothing here."
    )


def _bent(values: list[str]) -> str:
    return f"nowhere: overridden by hand, {', '.join(values)}"


def _layers_found(first: int, stop: int, volume: SurfaceVolume | None) -> str:
    if volume is None:
        return f"{stop - first}"
    low, high = volume.provenance.numbers_of(range(first, stop))
    return f"{stop - first} of {volume.layer_count}: source layers {low}:{high}"


def _range(bounds: Any) -> str:
    return f"{bounds[0]}:{bounds[1]}"


def _size(plane_um: float, layer_um: float | None) -> str:
    return f"{plane_um:g} µm" + (f" ({layer_um:g} µm between layers)" if layer_um else "")


def _or_none(value: Any) -> str:
    return "none" if value is None else str(value)


def _rules(contract: Mapping[str, Any]) -> str:
    """Name the stitching rules that are not the usual ones; older manifests state none."""
    rules = contract.get("stitching", {})
    words = {
        "divide_by": {"count": "divided by the number of tiles"},
        "last_tile": {"none": "no tile moved in to the border"},
        "tiles": {"whole": "only tiles wholly on papyrus"},
        "empty_tiles": {"count": "empty tiles count as 0"},
        "outside": {"keep": "values outside the mask kept"},
    }
    said = [words[key][value] for key, value in rules.items() if value in words.get(key, {})]
    if closing := rules.get("closing_px"):
        said.append(f"the mask closed by {closing} px")
    return "".join(f", {one}" for one in said)


def _scaling(contract: Mapping[str, Any]) -> str:
    rule = contract.get("normaliser", {"kind": "fixed"})
    if rule["kind"] in ("robust-mad", "percentile-range"):
        low, high = rule["percentiles"]
        values = "values other than 0" if rule["counts"] == "nonzero" else "all values"
        return f"{rule['kind']} per {rule['statistics']}, percentiles {low:g} and {high:g} of {values}"
    words = f"clipped to {contract['clip'][0]:g} … {contract['clip'][1]:g}, " if contract["clip"] else ""
    how = "times the reciprocal of" if contract.get("scaling") == "multiply" else "divided by"
    words += f"{how} {contract['divisor']:g}"
    if contract["mean"] or contract["std"] != 1:
        words += f", less {contract['mean']:g}, divided by {contract['std']:g}"
    if rule["kind"] == "network":
        words += "; the network then takes the tile's own statistics"
    return words


def _threshold(contract: Mapping[str, Any]) -> str:
    if contract["threshold"] is None:
        return "none stated"
    fitted = contract["threshold_fitted_on"]
    return f"{contract['threshold']:g}" + (f", fitted on {fitted}" if fitted else "")
