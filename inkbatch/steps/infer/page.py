"""The page of an ink map: ink over papyrus, the map, and whether the network was fed what it was promised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inkbatch.data.datasets.trained_pixels import TrainedPixels
from inkbatch.data.maps.scoring import DEFAULT_THRESHOLD, threshold_of
from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.reports.page import Figure, Link, Page, Picture, Pixels, Section, Table, Words
from inkbatch.reports.pictures import (
    amber_legend,
    as_grey,
    coloured,
    legend_of,
    map_tones,
    middle_layer,
    over_papyrus,
    small_mask,
    surface_read,
)
from inkbatch.reports.stored import bundle_warnings
from inkbatch.reports.timing import device_of, money_text, spent, stops
from inkbatch.run.finished import StoredRun
from inkbatch.run.record import SCORE_NAME
from inkbatch.steps.infer.choices import replaced
from inkbatch.steps.infer.contract_table import override_words, promises, training_promise
from inkbatch.text import seconds_text, share_text

STAGES = ("getting ready: the network", "computing", "waiting for layers and storage", "finishing")
MUCH_INK = 0.5  # of the papyrus above the threshold: no writing covers so much


@dataclass(frozen=True)
class Papyrus:
    """The surface under the map.

    Attributes:
        volume: The surface.
        mask_pixels: Pixels of papyrus.
    """

    volume: SurfaceVolume
    mask_pixels: int


@dataclass(frozen=True)
class Score:
    """Scores of the map against labels.

    Attributes:
        name: Of the F-beta, ``F0.5``.
        own: It at the threshold of the page; None if it was not taken there.
        best: It at its best threshold.
        best_at: That threshold.
        auc: Area under the ROC curve.
        counted_px: Pixels that count.
        labels_made_from: The prediction that the labels were made from, or None.
        beside: Which labelled pixels it leaves out, in words; empty if none.
    """

    name: str
    own: float | None
    best: float
    best_at: float
    auc: float
    counted_px: int
    labels_made_from: str | None
    beside: str


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of an ink map.

    Args:
        run: The finished run, in ``ROOT/predictions/{segment}/{name}``.
        root: ROOT that holds the prepared segment; where it is not there, or is another one, the map is shown alone.

    Raises:
        DataError: The map is not there or damaged.
    """
    config, inputs = run.manifest["config"], run.manifest["inputs"]
    prediction = Prediction.open(run.folder)
    papyrus = _papyrus(run, root)
    volume = papyrus.volume if papyrus else None
    tones = map_tones(prediction)
    threshold = threshold_of(config["contract"].get("threshold"))
    ink = _ink_share(tones, papyrus, threshold)
    trained = _trained_share(TrainedPixels.of(inputs.get("trained_on", {})), papyrus, prediction.shape_yx)
    facts = (run.folder / "complete.json").find_mapping() or {}
    segment, name = config["segment"], config["name"]
    return Page(
        job="infer",
        title=segment,
        sentence=(
            f"The network {inputs['bundle']} looked at {_layer_words(config)} of segment {segment} and gave every "
            f"pixel of papyrus a probability of ink; this is the map {name}."
        ),
        hero=_pictures(prediction, _stretched(tones, config), papyrus, config),
        figures=tuple(_figures(run, prediction, papyrus, ink, threshold)),
        warnings=tuple(_warnings(run, papyrus, ink, trained)),
        contract=(*promises(config, volume), *training_promise(facts, trained)),
        contract_caption=(
            f"What the bundle {inputs['bundle']} promised its network would be fed, what the surface says of itself, "
            "and where the two were brought together. A mismatch is refused before a network is built."
        ),
        spent=spent(run.rows, STAGES),
        sections=tuple(_sections(run)),
        repeat="inkbatch rerun manifest.json --root ANOTHER_ROOT",
        repeat_note=(
            "Run it in this page's folder: it makes the same map once more and says whether the bytes are equal. "
            f"To look closer: inkbatch view {segment} --root ROOT; to take it along: inkbatch export {segment} --name "
            f"{name} --root ROOT --to map.tif. ROOT is the folder or s3:// address that holds predictions/."
        ),
        files=tuple(_files(run)),
    )


def _papyrus(run: StoredRun, root: Location) -> Papyrus | None:
    """Open the very surface that was read; None if ROOT does not have it."""
    segment = run.manifest["config"]["segment"]
    volume = surface_read(root, segment, run.manifest["inputs"]["surface"])
    try:
        facts = (root / "segments" / segment / "prepare" / "complete.json").read_mapping()
        return Papyrus(volume, int(facts["mask_pixels"])) if volume else None
    except (FileNotFoundError, DataError, KeyError):
        return None


def _layer_words(config: Mapping[str, Any]) -> str:
    variants = config.get("variants", {})
    windows = len(variants.get("layer_groups", [])) or 1
    start, stop = config["layers"]
    words = f"{stop - start} layers"
    if windows > 1:
        words += f" in {windows} windows"
    views = len(variants.get("tta", []))
    return f"{words}, each tile from {views + 1} sides," if views else words


def _ink_share(tones: Pixels, papyrus: Papyrus | None, threshold: float) -> float | None:
    """Compute the share of the papyrus at or above the threshold, from the picture; None without papyrus."""
    if papyrus is None:
        return None
    height, width = papyrus.volume.shape_yx
    share = papyrus.mask_pixels / (height * width)
    return min(1.0, float(np.mean(tones >= np.rint(threshold * 255))) / max(share, 1e-9))


def _stretched(tones: Pixels, config: Mapping[str, Any]) -> Pixels:
    """Stretch tones over the contract's display range from black to white."""
    black, white = config["contract"].get("display_range", (0, 1))
    steps = np.rint(np.clip((np.arange(256) / 255 - black) / (white - black), 0, 1) * 255).astype(np.uint8)
    shown: Pixels = steps[tones]
    return shown


def _pictures(
    prediction: Prediction, tones: Pixels, papyrus: Papyrus | None, config: Mapping[str, Any]
) -> tuple[Picture, ...]:
    segment = config["segment"]
    black, white = config["contract"].get("display_range", (0, 1))
    width_um = prediction.shape_yx[1] * prediction.pyramid.pixel_um()
    plain = Picture(
        coloured(tones),
        alt=f"Ink map of segment {segment}: black is no ink, yellow is certain ink.",
        caption="The map: the probability of ink at every pixel, as the network gave it.",
        width_um=width_um,
        legend=legend_of("inferno", f"{black:g} · no ink", f"{white:g} · ink"),
    )
    if papyrus is None:
        return (plain,)
    grey = as_grey(middle_layer(papyrus.volume), small_mask(papyrus.volume))
    over = Picture(
        over_papyrus(tones, grey),
        alt=f"Probable ink in amber over the grey middle layer of segment {segment}.",
        caption="Ink over papyrus: the map in amber over the middle layer, whose contrast is stretched for the eye.",
        width_um=width_um,
        legend=amber_legend(),
    )
    return over, plain


def _figures(
    run: StoredRun, prediction: Prediction, papyrus: Papyrus | None, ink: float | None, threshold: float
) -> Iterator[Figure]:
    facts = (run.folder / "complete.json").read_mapping()
    score = _score(run)
    if score is not None:
        if score.own is not None:
            whose = "the bundle's threshold" if _states_threshold(run) else "the bundle states none"
            yield Figure(f"{score.own:.3f}", f"{score.name} against labels", f"at {threshold:g}; {whose}")
        counted = f"at {score.best_at:.2f}; {score.counted_px:,} px count{score.beside}"
        yield Figure(f"{score.best:.3f}", f"best {score.name} against labels", counted)
        yield Figure(f"{score.auc:.3f}", "AUC against labels", "1 is perfect, 0.5 is chance")
    if papyrus is not None:
        um = papyrus.volume.provenance.voxel_size_um
        yield Figure(f"{papyrus.mask_pixels * um**2 / 1e6:,.1f} mm²", "papyrus read")
    if ink is not None:
        yield Figure(f"≈ {ink:.1%}", "of it is ink", f"from probability {threshold:g} on")
    height, width = prediction.shape_yx
    yield Figure(f"{width:,} × {height:,} px", "map")
    seconds = sum(float(row.get("seconds", 0)) for row in run.rows)
    loop = sum(float(row.get("loop_s", 0)) for row in run.rows)
    tiles = sum(float(row.get("tiles", 0)) for row in run.rows)
    pace = f"{tiles / loop:,.0f} per second and process" if loop and tiles else ""
    yield Figure(f"{facts['tiles']:,}", "tiles", pace)
    if seconds:
        yield Figure(seconds_text(seconds), "time", f"on {device_of(run.rows)}")
    money = money_text(run.rows)
    if money:
        yield Figure(money, "money")


def _states_threshold(run: StoredRun) -> bool:
    return bool(run.manifest["config"]["contract"].get("threshold"))


def _score(run: StoredRun) -> Score | None:
    """Read the scores of `inkbatch evaluate` for this map if there are any, else those that infer stored."""
    try:
        found = (run.folder / "evaluation" / "evaluation.json").read_mapping()
    except FileNotFoundError:
        return _own_score(run)
    one, threshold = found["maps"][0], threshold_of(run.manifest["config"]["contract"].get("threshold"))
    own = next((at["f_beta"] for at in one["at"] if at["threshold"] == threshold), None)
    best = one["best"]
    made_from, counted = found.get("labels_made_from"), found["counted_px"]
    scores = (own, best["f_beta"], best["threshold"], one["auc"], counted, made_from)
    return Score(f"F{found['beta']:g}", *scores, _beside(found))


def _own_score(run: StoredRun) -> Score | None:
    try:
        found = (run.folder / SCORE_NAME).read_mapping()
    except FileNotFoundError:
        return None
    best, at = found["best_f05"], found["best_threshold"]
    if best is None:
        return None
    scores = (found["f05"], best, at, found["auc"], found["counted_px"], found["labels_made_from"])
    return Score("F0.5", *scores, _beside(found))


def _beside(found: Mapping[str, Any]) -> str:
    share = float(found.get("trained_share", 0))
    return f", {share_text(share)} of the labelled ones trained this network and do not" if share else ""


def _trained_share(trained: TrainedPixels, papyrus: Papyrus | None, shape_yx: tuple[int, int]) -> float:
    """Share of the papyrus that trained the network, from the small mask; of the whole map without papyrus."""
    whole = Box(0, 0, *shape_yx)
    if papyrus is None or not len(trained.train):
        return trained.share([whole])
    mask = small_mask(papyrus.volume)
    rows, columns = (
        ((np.arange(small) + 0.5) * full / small).astype(np.int64)
        for small, full in zip(mask.shape, shape_yx, strict=True)
    )
    seen = np.zeros(mask.shape, bool)
    for y0, x0, y1, x1 in trained.train.tolist():
        (a, b), (c, d) = np.searchsorted(rows, (y0, y1)), np.searchsorted(columns, (x0, x1))
        seen[a:b, c:d] = True
    return float((seen & mask).sum() / max(int(mask.sum()), 1))


def _warnings(run: StoredRun, papyrus: Papyrus | None, ink: float | None, share: float) -> Iterator[str]:
    config = run.manifest["config"]
    yield from bundle_warnings(run)
    if share:
        yield (
            f"{share_text(share)} of these pixels trained this network: there the map shows what it remembers. Scores "
            "leave these pixels out."
        )
    for key, value in replaced(config).items():
        yield override_words(key, value)
    probe = config.get("probe")
    if probe:
        yield (
            f"Layers and depth order ({probe['depth_order']}) were chosen by a depth probe (verdict "
            f"{probe['verdict']}, confidence {probe['confidence']:.2f}); docs/trust.md says how far that goes."
        )
    if papyrus is None:
        yield (
            "The prepared segment that this map was made from is not under this ROOT, so the map is shown without "
            "papyrus, and the surface's side of the contract is what the run recorded."
        )
    if ink is not None and ink > MUCH_INK:
        yield (
            f"{ink:.0%} of the papyrus counts as ink, more than any writing covers: suspect layers, depth order or "
            "preprocessing before you read it (inkbatch probe)."
        )
    if not _states_threshold(run):
        yield f"The bundle states no threshold; {DEFAULT_THRESHOLD} is used on this page."
    score = _score(run)
    if score and score.labels_made_from:
        yield f"The labels were made from the prediction {score.labels_made_from}: its score flatters it."
    for why in stops(run.rows):
        yield f"A process stopped before its part was done: {why}. Later ones went on; the map is whole."


def _sections(run: StoredRun) -> Iterator[Section]:
    config, inputs = run.manifest["config"], run.manifest["inputs"]
    variants = config.get("variants")
    if variants:
        groups = ", ".join(f"{start}:{stop}" for start, stop in variants.get("layer_groups", [])) or "one window"
        views = ", ".join(["as it is", *variants["tta"]])
        yield Section(
            "Variants",
            (
                Words(
                    f"Every pixel is the {variants['combine']} of several answers. Layer windows: {groups}. "
                    f"Views of each tile: {views}."
                ),
            ),
        )
    together = [row for row in run.rows if row.get("made_together")]
    if together:
        names = ", ".join(together[-1]["made_together"])
        yield Section(
            "Made together",
            (Words(f"One job made these maps together, and time and money are those of all: {names}."),),
        )
    rows = [
        ("bundle", str(inputs["bundle"])),
        ("architecture", str(inputs["architecture"])),
        ("weights, SHA-256", str(inputs["weights_sha256"])),
        ("surface, digest", str(inputs["surface"])),
        ("unit", f"{config['unit_px']} px, {run.manifest['units']} of them"),
        ("precision", str(config["precision"])),
        ("compiled", "yes" if config["compile"] else "no"),
        ("run, digest", str(run.manifest["digest"])),
    ]
    yield Section("Provenance", (Table("What exactly ran.", ("what", "found"), tuple(rows)),), folded=True)


def _viewers(run: StoredRun) -> Iterator[Link]:
    """Links of a copy that other viewers open, where `inkbatch export` made one."""
    try:
        found = (run.folder / "viewers.json").read_json()
    except FileNotFoundError:
        return
    if found["neuroglancer"]:
        yield Link("Neuroglancer", found["neuroglancer"], f"the map in the browser, from {found['ome_zarr']}")


def _files(run: StoredRun) -> Iterator[Link]:
    there = run.folder.names()
    yield from _viewers(run)
    notes = {
        "preview.png": "the map as a grey picture",
        "manifest.json": "what ran: settings and inputs",
        "complete.json": "that every unit is there",
        SCORE_NAME: "how good it is against labels",
    }
    yield Link("prediction.zarr", "prediction.zarr/zarr.json", "the map: float16 probability, OME-Zarr with a pyramid")
    for name in there:
        if name in notes:
            yield Link(name, name, notes[name])
        elif name.startswith("run") and name.endswith(".json"):
            yield Link(name, name, "what it took: seconds, bytes, device, money")
        elif name == "evaluation":
            yield Link("evaluation/evaluation.json", "evaluation/evaluation.json", "how good it is against labels")
