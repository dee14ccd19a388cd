"""Table of infer's contract guard: the bundle's promise, the surface's value, and the place of the comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inkbatch.io.surface import SurfaceVolume
from inkbatch.reports.page import Promise
from inkbatch.steps.infer.choices import chosen, replaced
from inkbatch.text import share_text

UNKNOWN = "not under this ROOT; compared when the job began"
COMPARED = "compared before the network was built"
NAMES_TRAINING = "bundle_names_training"  # key of complete.json; maps of older versions lack it


def promises(config: Mapping[str, Any], volume: SurfaceVolume | None) -> tuple[Promise, ...]:
    """Make the rows of the table.

    Args:
        config: The manifest's ``config``; its contract has all overrides.
        volume: The surface; None if it is not available.
    """
    guard = _Guard(config, volume)
    return (*guard.depth(), *guard.surface(), *guard.tiles())


def training_promise(facts: Mapping[str, Any], share: float) -> tuple[Promise, ...]:
    """Make the row that says if the network was trained on what it reads.

    Args:
        facts: ``complete.json``.
        share: Share of the map's pixels that trained the network.

    Returns:
        One row; none of a map that an older version made.
    """
    if NAMES_TRAINING not in facts:
        return ()
    if not facts[NAMES_TRAINING]:
        return (Promise("training", "not named", "not known", "ask who published the network what it was trained on"),)
    found = f"{share_text(share)} of these pixels trained it" if share else "none of these pixels trained it"
    where = "looked for by the segment's name, its address and its pixels"
    return (Promise("training", "segments and pixels are named", found, where),)


@dataclass(frozen=True)
class _Guard:
    """The rows of the table, by what they guard."""

    config: Mapping[str, Any]
    volume: SurfaceVolume | None

    @property
    def contract(self) -> Mapping[str, Any]:
        """The contract with all overrides."""
        found: Mapping[str, Any] = self.config["contract"]
        return found

    def row(self, what: str, promised: str, found: str | None, where: str, keys: tuple[str, ...]) -> Promise:
        """Make a row; one whose keys were overridden is not kept."""
        bent = [f"{key}={value}" for key, value in replaced(self.config).items() if key.partition(".")[0] in keys]
        if bent:
            return Promise(what, f"not the bundle's own: {promised}", found or UNKNOWN, _bent(bent), kept=False)
        return Promise(what, promised, found or UNKNOWN, where)

    def depth(self) -> Iterator[Promise]:
        """Yield what is said of layers and their order."""
        layers, order = self.contract["layers"], self.contract["depth_order"]
        source_range, (first, stop) = layers.get("source_range"), self.config["layers"]
        turned = self.volume and self.volume.provenance.depth_order == "reversed"
        yield self.row(
            "layers",
            f"{layers['count']}, " + (f"source {_range(source_range)}" if source_range else "centred"),
            _layers_found(first, stop, self.volume),
            "cut out on reading; never clamped",
            ("layers",),
        )
        yield self.row(
            "depth order",
            order,
            "forward: prepared layers always run in depth order" + (", the source was turned round" if turned else ""),
            "turned round on reading, for this network" if order == "reversed" else "fed in this order",
            ("depth_order",),
        )

    def surface(self) -> Iterator[Promise]:
        """Yield what is compared with the surface's own words."""
        contract, volume = self.contract, self.volume
        said = volume.provenance if volume else None
        yield self.row("dtype", contract["dtype"], volume.dtype.name if volume else None, COMPARED, ("dtype",))
        yield self.row(
            "grey values",
            " or ".join(contract["intensity"]),
            said.intensity if said else None,
            f"on preparing; {COMPARED}",
            ("intensity",),
        )
        yield self.row(
            "voxel size",
            f"{_size(contract['voxel_size_um'], contract.get('z_spacing_um'))} ± {contract['voxel_tolerance']:.0%}",
            _size(said.voxel_size_um, said.z_spacing_um) if said else None,
            COMPARED,
            ("voxel_size_um", "z_spacing_um", "voxel_tolerance"),
        )
        lut = _or_none(said.lut) if said else None
        yield self.row("lookup table", _or_none(contract["lut"]), lut, COMPARED, ("lut",))
        clahe = _or_none(said.clahe and said.clahe.model_dump()) if said else None
        yield self.row("CLAHE", _or_none(contract["clahe"]), clahe, COMPARED, ("clahe",))

    def tiles(self) -> Iterator[Promise]:
        """Yield what is done to tiles and their answers."""
        contract, asked = self.contract, [f"{key}={value}" for key, value in chosen(self.config).items()]
        grid = "one grid over the whole segment; overlapping answers are blended"
        yield self.row(
            "input values",
            _scaling(contract),
            "the same",
            "done to every tile on the device, in float32",
            ("clip", "divisor", "scaling", "mean", "std", "normaliser"),
        )
        yield self.row(
            "tiles",
            f"{contract['tile_px']} px ({contract['tile_px'] * contract['voxel_size_um'] / 1000:.2f} mm) every "
            f"{contract['stride_px']} px, {contract['window']} window{_rules(contract)}",
            "the same",
            f"{grid}; asked for by this run: {', '.join(asked)}" if asked else grid,
            ("tile_px", "activation", "stitching"),
        )
        yield self.row(
            "threshold",
            _threshold(contract),
            "the same",
            "marks ink on this page and in exports; the map is stored as it is",
            ("threshold",),
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
