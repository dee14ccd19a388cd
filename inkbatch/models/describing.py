"""Presets and bundles in words, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

from inkbatch.models.bundle import BundleDocument, Contract
from inkbatch.models.presets import Preset

WIDTH = 110
INDENT = 16
LUT_POINTS_SHOWN = 4


def describe_contract(contract: Contract) -> list[str]:
    """Describe the input that a network needs, one rule per line."""
    chosen = contract.layers.source_range
    where = f"numbers {chosen[0]}:{chosen[1]} of the source" if chosen else "the centre ones of what is prepared"
    low, high = contract.clip or (None, None)
    clip = "not clipped" if low is None else f"clipped to {low:g} .. {high:g}"
    scale = f", minus {contract.mean:g}, divided by {contract.std:g}" if (contract.mean, contract.std) != (0, 1) else ""
    how = "times the reciprocal of" if contract.scaling == "multiply" else "divided by"
    then = "; the network's first layer takes the tile's own statistics"
    then = then if contract.normaliser.kind == "network" else ""
    rows = [
        ("layers", f"{contract.layers.count}, {where}"),
        ("depth order", contract.depth_order),
        ("voxel", _voxel(contract)),
        ("surface", f"{contract.dtype}, made with {' or '.join(contract.intensity)}"),
        ("lookup table", _lut(contract.lut)),
        ("clahe", "none" if contract.clahe is None else str(contract.clahe)),
        ("intensities", _normaliser(contract) or f"{clip}, {how} {contract.divisor:g}{scale}{then}"),
        ("tile", f"{_tile(contract)}, stride {contract.stride_px} px, window {contract.window}"),
        ("stitching", _stitching(contract)),
        ("output", "logits" if contract.activation == "sigmoid" else "the map itself"),
        ("views", ", ".join(contract.tta_axes) or "none may be averaged"),
        *([("boundary", f"{contract.boundary_px} px inside each object")] if contract.boundary_px else []),
        ("threshold", _threshold(contract)),
    ]
    return _table(rows)


def _tile(contract: Contract) -> str:
    um = contract.voxel_size_um
    return f"{contract.tile_px} px" + (f" ({contract.tile_px * um / 1000:.2f} mm)" if um else "")


def _voxel(contract: Contract) -> str:
    if contract.voxel_size_um is None:
        return "pictures of unknown scale"
    within = f"within {contract.voxel_tolerance:.0%}"
    if contract.z_spacing_um is None:
        return f"{contract.voxel_size_um:g} µm on every axis, {within}"
    return f"{contract.voxel_size_um:g} µm in the plane, {contract.z_spacing_um:g} µm between layers, {within}"


def describe_bundle(document: BundleDocument) -> list[str]:
    """Describe a bundle: network, contract, origin."""
    flops = "unknown" if document.flops_per_tile is None else f"{document.flops_per_tile / 1e9:,.1f} GFLOP per tile"
    config = ", ".join(f"{key} {value}" for key, value in document.model.items())
    rows = [("network", document.architecture), ("config", config), ("work", flops)]
    rows += [
        (f"source {key}", str(document.source[key])) for key in ("uri", "sha256", "preset") if key in document.source
    ]
    if changed := document.source.get("changed"):
        rows.append(("changed", str(changed)))
    rows += [(key, str(value)) for key, value in document.metrics.items()]
    rows += [("warning", text) for text in document.warnings]
    if document.reference:
        rows.append(
            ("reference", f"a tile of {document.reference.get('tile_px')} px, compared once on every new device")
        )
    return [f"bundle {document.name}", *_table(rows), *describe_contract(document.contract)]


def prepare_settings(contract: Contract) -> dict[str, Any]:
    """List the settings of `inkbatch prepare` that a segment needs to match the contract.

    The 16 -> 8 bit rule is among them where the contract accepts only one.
    """
    settings: dict[str, Any] = {}
    if len(contract.intensity) == 1 and not contract.intensity[0].endswith("*"):
        settings["intensity"] = contract.intensity[0]
    if contract.lut is not None:
        settings["lut"] = [list(point) for point in contract.lut]
    if contract.clahe is not None:
        settings["clahe"] = contract.clahe.model_dump()
    return settings


def describe_preset(preset: Preset) -> list[str]:
    """Describe a preset with all that it says."""
    texts = [
        (key.replace("_", " "), getattr(preset, key)) for key in ("layers", "depth_order", "intensity", "training")
    ]
    texts += [("has seen", preset.seen), ("blending", preset.blending), ("licence", preset.licence)]
    for place in preset.published:
        file = f", file {place.file}" if place.file else ""
        digest = f"sha256 {place.sha256}" if place.sha256 else "digest not known"
        texts.append(("published", f"{place.where}{file}, {digest}{'. ' + place.note if place.note else ''}"))
    texts += [("assumed", assumption) for assumption in preset.assumptions]
    if preset.text:
        texts.append(("note", preset.text))
    heading = [f"preset {preset.name}: {preset.title}", *_table([("by", preset.by), ("network", preset.architecture)])]
    return [*heading, *describe_contract(preset.contract), *_table(texts)]


def preset_rows(presets: Iterable[Preset]) -> list[str]:
    """Describe presets in one line each, under the voxel edge that they were trained at."""
    rows: list[str] = []
    scale = None
    for preset in presets:
        if preset.contract.voxel_size_um != scale:
            scale = preset.contract.voxel_size_um
            rows.append("pictures" if scale is None else f"{scale:g} µm")
        rows.append(f"  {preset_row(preset)}")
    return rows


def preset_row(preset: Preset) -> str:
    """Describe a preset in one line."""
    contract = preset.contract
    chosen = contract.layers.source_range
    layers = f"{contract.layers.count} layers" + (f" {chosen[0]}:{chosen[1]}" if chosen else " centred")
    rule = contract.normaliser
    fed = f"{rule.kind} per {rule.statistics}" if rule.by_statistics else f"/ {contract.divisor:g}"
    return f"{preset.name:<33}{layers:<18}{contract.tile_px:>4} px  {fed:<22}{preset.title}"


def _lut(points: tuple[tuple[int, int], ...] | None) -> str:
    if points is None:
        return "none"
    texts = [f"{x} to {y}" for x, y in points]
    if len(texts) > LUT_POINTS_SHOWN:
        texts = [*texts[:2], "…", *texts[-2:]]
    return f"{len(points)} points: {', '.join(texts)}"


def _normaliser(contract: Contract) -> str:
    """Describe statistics in the place of clip and divisor; empty if the contract takes none."""
    rule = contract.normaliser
    if not rule.by_statistics:
        return ""
    low, high = rule.percentiles
    scale = "minus median, over 1.4826 MAD" if rule.kind == "robust-mad" else "0 to 1 between them"
    counts = ", zeros not counted" if rule.counts == "nonzero" else ""
    return f"per {rule.statistics}: clipped to percentiles {low:g} and {high:g}, {scale}{counts}"


def _stitching(contract: Contract) -> str:
    rules = contract.stitching
    closing = f", mask closed by {rules.closing_px} px" if rules.closing_px else ""
    return (
        f"sum over {rules.divide_by}, last tile {rules.last_tile}, tiles with {rules.tiles} papyrus{closing}, "
        f"empty tiles {rules.empty_tiles}, outside the mask {rules.outside}"
    )


def _threshold(contract: Contract) -> str:
    if contract.threshold is None:
        return "none"
    return f"{contract.threshold:g}" + (
        f", fitted on {contract.threshold_fitted_on}" if contract.threshold_fitted_on else ""
    )


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [
        textwrap.fill(
            value,
            WIDTH,
            initial_indent=f"  {key:<{INDENT - 2}}",
            subsequent_indent=" " * INDENT,
            break_on_hyphens=False,
            break_long_words=False,
        )
        for key, value in rows
    ]
