"""The page of a prepared segment: its middle layer, its mean and mask, its grey values, and their source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.io.intensity import IntensityRule
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceProvenance, SurfaceVolume
from inkbatch.reports.charts.shapes import Axis
from inkbatch.reports.charts.svg import histogram_chart
from inkbatch.reports.page import Element, Figure, Link, Page, Picture, Promise, Section, Table, Words
from inkbatch.reports.pictures import as_grey, fitted, mean_layer, middle_layer, small_mask
from inkbatch.reports.timing import money_text, spent, stops
from inkbatch.run.finished import StoredRun

SAMPLE_SQUARES, SAMPLE_PX = 9, 256  # of all layers at full size, for the histogram
BINS = 256
MUCH_AT_THE_ENDS = 0.02  # of the voxels; more than that is worth a warning
STAGES = ("opening the layers", None, "reading, converting and writing", "finishing")


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of a prepared segment.

    Args:
        run: The finished run, in ``ROOT/segments/{segment}/prepare``.
        root: Not needed: all that is shown lies beside the run.

    Raises:
        DataError: The surface is not there or damaged.
    """
    volume = SurfaceVolume.open(run.folder.parent)
    said = volume.provenance
    mask_pixels = int((run.folder / "complete.json").read_mapping()["mask_pixels"])
    counts = _histogram(volume)
    ends = _at_the_ends(counts)
    height, width = volume.shape_yx
    return Page(
        job="prepare",
        title=said.segment,
        sentence=(
            f"{volume.layer_count} layers of segment {said.segment} were read from {said.source}, put into depth "
            f"order, and stored as a volume of {width:,} × {height:,} pixels that every other job can read."
        ),
        hero=_pictures(volume, small_mask(volume)),
        figures=(*_figures(volume, mask_pixels, ends), *_money(run)),
        warnings=tuple(_warnings(run, said, ends, mask_pixels / (height * width))),
        contract=_promises(run, volume),
        contract_caption="What was said about the layers, and what the stored surface says of itself.",
        spent=spent(run.rows, STAGES),
        sections=(
            Section("Grey values", _grey_values(said, counts)),
            Section("Where it came from", (_origin(run, said),)),
        ),
        repeat="inkbatch rerun prepare/manifest.json --root ANOTHER_ROOT",
        repeat_note=(
            "Run it in this page's folder: it reads the layers again with the same rules and says whether the bytes "
            f"are equal. The next step: inkbatch infer {said.segment} --bundle BUNDLE --root ROOT."
        ),
        files=(
            Link("surface.zarr", "surface.zarr/zarr.json", "the layers in depth order, OME-Zarr with a pyramid"),
            Link("mask.zarr", "mask.zarr/zarr.json", "where there is papyrus"),
            Link("prepare/manifest.json", "prepare/manifest.json", "what ran: settings and inputs"),
            Link("prepare/complete.json", "prepare/complete.json", "that every unit is there"),
            *(
                Link(f"prepare/{name}", f"prepare/{name}", "what it took")
                for name in run.folder.names()
                if _is_clock(name)
            ),
        ),
    )


def _is_clock(name: str) -> bool:
    return name.startswith("run") and name.endswith(".json")


def _money(run: StoredRun) -> tuple[Figure, ...]:
    money = money_text(run.rows)
    return (Figure(money, "money"),) if money else ()


def _pictures(volume: SurfaceVolume, mask: NDArray[np.bool_]) -> tuple[Picture, ...]:
    segment, width_um = volume.provenance.segment, volume.shape_yx[1] * volume.provenance.voxel_size_um
    middle = volume.layer_count // 2
    source = volume.provenance.numbers_of(range(middle, middle + 1))[0]
    return (
        Picture(
            as_grey(middle_layer(volume), mask),
            alt=f"Grey X-ray picture of the middle layer of segment {segment}, black outside the papyrus.",
            caption=(
                f"The middle layer: number {middle} in depth order, layer {source} of the source. Contrast is "
                "stretched for the eye; the stored values are as below."
            ),
            width_um=width_um,
        ),
        Picture(
            as_grey(mean_layer(volume), mask),
            alt=f"Grey picture of the mean over all {volume.layer_count} layers of segment {segment}.",
            caption=f"The mean over all {volume.layer_count} layers: holes and folds show here.",
            width_um=width_um,
        ),
        Picture(
            fitted(np.where(mask, np.uint8(235), np.uint8(40)), 800),
            alt=f"The mask of segment {segment}: light where there is papyrus, dark outside.",
            caption=f"The mask: light is papyrus. {_mask_words(volume.provenance)}",
            width_um=width_um,
        ),
    )


def _mask_words(said: SurfaceProvenance) -> str:
    if said.mask == "derived" and said.rendered is not None:
        return "It follows from the mesh: holes are outside, and so is what has not all its layers in the volume."
    if said.mask == "derived":
        return "It was derived: pixels that are zero in every layer are outside."
    return f"It was given: {said.mask}."


def _figures(volume: SurfaceVolume, mask_pixels: int, ends: tuple[float, float]) -> tuple[Figure, ...]:
    said, um = volume.provenance, volume.provenance.voxel_size_um
    height, width = volume.shape_yx
    share = mask_pixels / (height * width)
    return (
        Figure(
            f"{mask_pixels * um**2 / 1e6:,.1f} mm²",
            "papyrus",
            f"{share:.0%} of the picture; the rest is outside the mask",
        ),
        Figure(f"{width:,} × {height:,} px", "size", f"{width * um / 1000:,.1f} × {height * um / 1000:,.1f} mm"),
        Figure(f"{volume.layer_count}", "layers", f"{volume.layer_count * said.layer_um:,.0f} µm deep"),
        Figure(f"{um:g} µm", "voxel edge"),
        Figure(volume.dtype.name, "grey values", _rule_words(said)),
        Figure(f"{ends[0]:.1%} / {ends[1]:.1%}", "at the lowest / highest value", "detail that is lost at both ends"),
    )


def _rule_words(said: SurfaceProvenance) -> str:
    words = {"keep": "as the source has them", "high-byte": "the high byte of 16 bits"}
    return words.get(said.intensity, said.intensity)


def _promises(run: StoredRun, volume: SurfaceVolume) -> tuple[Promise, ...]:
    said, config, asked = volume.provenance, run.manifest["config"], run.manifest.get("request", {})
    low, high = said.source_layers
    shape = run.manifest["inputs"]["source_shape_zyx"]
    return (
        Promise(
            "layers",
            "{}:{}".format(*(said.resampled.layers if said.resampled else (low, high))),
            f"{volume.layer_count} stored of {shape[0]}",
            said.resampled.rule if said.resampled else "read by number, none left out",
        ),
        Promise(
            "depth order",
            str(asked.get("depth_order", said.depth_order)),
            said.depth_order,
            "the layers were turned round on reading"
            if said.depth_order == "reversed"
            else "the source's order was kept",
        ),
        Promise(
            "voxel size",
            f"{asked.get('voxel_size_um', said.voxel_size_um):g} µm",
            f"{said.voxel_size_um:g} µm" + (f", {said.z_spacing_um:g} µm between layers" if said.z_spacing_um else ""),
            "stated by the catalog or the command, compared with the source's own where it has one",
        ),
        Promise(
            "grey values",
            str(asked.get("intensity", "by dtype")),
            said.intensity,
            f"{said.source_dtype} became {volume.dtype.name} on reading",
        ),
        Promise(
            "size",
            f"{shape[2]:,} × {shape[1]:,} px",
            f"{volume.shape_yx[1]:,} × {volume.shape_yx[0]:,} px",
            "every pixel of the source was stored" if said.resampled is None else said.resampled.rule,
        ),
        Promise(
            "units",
            f"{run.manifest['units']}",
            f"{run.manifest['units']}",
            "each has a marker; every chunk carries a checksum",
        ),
        *_grey_promises(said, config),
    )


def _grey_promises(said: SurfaceProvenance, config: Mapping[str, Any]) -> Iterator[Promise]:
    """Yield a row for each change of grey values that was asked for."""
    if config.get("lut") is not None:
        yield Promise("lookup table", str(config["lut"]), str(said.lut), "applied on reading")
    if said.clahe is not None:
        where = "applied on reading, one grid over the whole segment"
        yield Promise("CLAHE", str(config["clahe"]), str(said.clahe.model_dump()), where)


def _histogram(volume: SurfaceVolume) -> NDArray[np.int64]:
    """Count the stored values in `BINS` equal bins, over papyrus in a fixed grid of squares at full size."""
    span = BINS if volume.dtype == np.uint8 else 1 << 16
    total = np.zeros(BINS, np.int64)
    for box in sample_boxes(*volume.shape_yx):
        inside = volume.read_mask(box)
        if not inside.any():
            continue
        values = volume.read(range(volume.layer_count), box)[:, inside]
        total += np.bincount((values.ravel().astype(np.int64) * BINS) // span, minlength=BINS)
    return total


def sample_boxes(height: int, width: int) -> list[Box]:
    """Lay a fixed grid of squares over a surface, each of them once: on a small one they are fewer."""
    ys, xs = _sample_starts(height), _sample_starts(width)
    return [Box(y, x, min(y + SAMPLE_PX, height), min(x + SAMPLE_PX, width)) for y in ys for x in xs]


def _sample_starts(size: int) -> list[int]:
    side = round(SAMPLE_SQUARES**0.5)
    starts = ((size - SAMPLE_PX) * (number + 1) // (side + 1) for number in range(side))
    return sorted({max(start // SAMPLE_PX * SAMPLE_PX, 0) for start in starts})


def _at_the_ends(counts: NDArray[np.int64]) -> tuple[float, float]:
    total = max(int(counts.sum()), 1)
    return float(counts[0] / total), float(counts[-1] / total)


def _grey_values(said: SurfaceProvenance, counts: NDArray[np.int64]) -> tuple[Element, ...]:
    if not counts.sum():
        return (Words("None of the squares that are looked at holds papyrus."),)
    top = 256 if _is_8_bits(said) else 65536
    stored = Axis("stored value (after the rule)", 0, top)
    second = _before(said, top)
    mean = float((counts * (np.arange(BINS) + 0.5)).sum() / counts.sum() * top / BINS)
    return (
        histogram_chart(
            f"Grey values of papyrus, all layers, in up to {SAMPLE_SQUARES} squares of {SAMPLE_PX} px at full size."
            + (
                " The upper scale shows the same places as grey values of the source, before the rule."
                if second
                else ""
            ),
            f"Histogram of the stored grey values; their mean is {mean:.0f} of {top - 1}.",
            counts,
            stored,
            second,
        ),
    )


def _is_8_bits(said: SurfaceProvenance) -> bool:
    return said.intensity != "keep" or said.source_dtype == "uint8"


def _before(said: SurfaceProvenance, top: int) -> Axis | None:
    """Return the axis of the source's grey values; None where the stored ones are no linear function of them."""
    if said.lut is not None or said.clahe is not None:
        return None
    rule = IntensityRule.parse(said.intensity)
    name = f"{said.source_dtype} of the source (before)"
    if rule.kind == "high-byte":
        return Axis(name, 0, 65536)
    if rule.kind == "window":
        return Axis(name, rule.low, rule.high)
    return None


def _warnings(run: StoredRun, said: SurfaceProvenance, ends: tuple[float, float], share: float) -> list[str]:
    found = [
        f"{part:.1%} of papyrus voxels have the {name} value that can be stored: detail is cut off there. Another "
        "intensity rule (window:LO:HI) may keep it."
        for part, name in zip(ends, ("lowest", "highest"), strict=True)
        if part > MUCH_AT_THE_ENDS
    ]
    rendered = said.rendered
    if rendered is not None and rendered.outside > 0:
        found.append(
            f"{rendered.outside:.1%} of the mesh has layers outside the volume; those pixels are outside the mask."
        )
    if share < 0.05:
        found.append(f"Only {share:.1%} of the picture is papyrus. Is this the right mask?")
    found += [f"A process stopped before its part was done: {why}. Later ones went on." for why in stops(run.rows)]
    return found


def _rendering(said: SurfaceProvenance, folder: Location) -> tuple[tuple[str, str], ...]:
    """Describe how the layers were rendered, if they were."""
    region = () if said.box is None else (("region", "rows {0}:{2}, columns {1}:{3} of it".format(*said.box)),)
    if said.rendered is None:
        return region
    facts = (folder / "complete.json").read_mapping()
    surface = facts["mask_pixels"] + facts["outside_pixels"]
    left_out = f"{facts['outside_pixels'] / max(1, surface):.1%} of the surface's pixels ({facts['outside_pixels']:,})"
    direction = "against the mesh's normals" if said.rendered.flip_normals else "along the mesh's normals"
    return (
        *region,
        ("rendered from", f"{said.rendered.volume}, level {said.rendered.level}"),
        ("its layers", f"{said.rendered.layers_count} layers {direction}, {said.layer_um:g} µm apart"),
        ("outside the volume", left_out),
    )


def _resampling(said: SurfaceProvenance) -> tuple[tuple[str, str], ...]:
    """Say how the layers were resampled, where they were."""
    if said.resampled is None:
        return ()
    z, y, _ = said.resampled.spacing_zyx_um
    low, high = said.resampled.layers
    read = f"layers {low}:{high} of {said.resampled.uri}, {z:g} µm between layers, {y:g} µm in the plane"
    return (("resampled from", read), ("by", said.resampled.rule))


def _origin(run: StoredRun, said: SurfaceProvenance) -> Table:
    inputs: dict[str, Any] = run.manifest["inputs"]
    depth, height, width = inputs["source_shape_zyx"]
    rows = (
        ("source", said.source),
        ("its size", f"{depth} layers of {width:,} × {height:,} px, {said.source_dtype}"),
        ("its fingerprint", str(inputs["source_fingerprint"])),
        ("mask", said.mask),
        *((("its scale", said.scale_reading),) if said.scale_reading else ()),
        *_resampling(said),
        *_rendering(said, run.folder),
        ("run", str(run.manifest["digest"])),
    )
    return Table("What the surface was made from.", ("what", "found"), rows)
