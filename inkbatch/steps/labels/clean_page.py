"""The page of a cleaned map: what was removed, and what is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from inkbatch.data.datasets.trained_pixels import TrainedPixels
from inkbatch.geometry import Box
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.reports.page import Figure, Page, Picture, Promise, Section, Table, Words
from inkbatch.reports.pictures import coloured, legend_of, map_tones
from inkbatch.reports.stored import RERUN, bundle_warnings, interruptions, links, money
from inkbatch.reports.timing import spent
from inkbatch.run.finished import StoredRun
from inkbatch.text import count_text, share_text

FILES = (
    ("prediction.zarr", "the cleaned map, float16 with a pyramid"),
    ("preview.png", "the same, small"),
    ("components.json", "counts, and the largest components"),
    ("manifest.json", "settings and inputs"),
    ("run.json", "seconds, bytes, machine"),
)
STAGES = ("opening the map", "finding components", "reading and writing", "finishing")
MUCH = 0.5  # of the ink: so much removed is hardly noise


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of a cleaned map.

    Args:
        run: The run, in ``ROOT/predictions/{segment}/{name}``.
        root: Not needed.
    """
    config, facts = run.manifest["config"], (run.folder / "components.json").read_json()
    source, prediction = run.manifest["inputs"]["prediction"]["name"], Prediction.open(run.folder)
    return Page(
        job="clean",
        title=f"{config['segment']} / {config['name']}",
        sentence=(
            f"The ink map {source} of segment {config['segment']} was cleaned: from probability "
            f"{config['threshold']:g} on a pixel is ink, and {removed_text(facts)}."
        ),
        hero=(
            Picture(
                coloured(map_tones(prediction)),
                alt=f"Cleaned ink map of segment {config['segment']}: black is no ink.",
                caption="The cleaned map.",
                width_um=prediction.shape_yx[1] * prediction.pyramid.pixel_um(),
                legend=legend_of("inferno", "0 · no ink", "1 · ink"),
            ),
        ),
        figures=(
            Figure(f"{facts['components']:,}", "components kept", f"{facts['component_px']:,} px"),
            Figure(f"{facts['removed_components']:,}", "components removed", f"{facts['removed_px']:,} px"),
            Figure(f"{facts['ink_px']:,} px", "ink in the cleaned map", ""),
            *money(run),
        ),
        warnings=(*_warnings(run, facts, prediction.shape_yx), *interruptions(run)),
        contract=(
            Promise("map", str(source), "complete", "its digest is in the manifest"),
            Promise("components", "those of the whole segment", "joined across units", "none is cut by a unit's edge"),
        ),
        contract_caption="What was cleaned, and how components were counted.",
        spent=spent(run.rows, STAGES),
        sections=(
            Section(
                "Settings",
                (
                    Words(
                        f"Filter: {config['denoise']['method']}. Components below {config['min_area_px']:,} px are "
                        f"removed, holes up to {config['max_hole_px']:,} px are filled."
                    ),
                    _largest(facts),
                ),
            ),
        ),
        repeat=RERUN,
        repeat_note=f"Compare it with its source: inkbatch view {config['segment']} --root ROOT.",
        files=links(run.folder, FILES),
    )


def removed_text(facts: Mapping[str, Any]) -> str:
    """Say what was removed and kept, ``3 components (120 px) were removed, 7 (5,301 px) are left``.

    Args:
        facts: ``components.json``, or ``complete.json``.
    """
    count = int(facts["removed_components"])
    were = "was" if count == 1 else "were"
    removed = (
        f"{count_text(count, 'component')} ({facts['removed_px']:,} px) {were} removed" if count else "none was removed"
    )
    return f"{removed}, {count_text(int(facts['components']), 'component')} ({facts['component_px']:,} px) left"


def _warnings(run: StoredRun, facts: Mapping[str, Any], shape_yx: tuple[int, int]) -> Iterator[str]:
    yield from bundle_warnings(run)
    share = TrainedPixels.of(run.manifest["inputs"].get("trained_on", {})).share([Box(0, 0, *shape_yx)])
    if share:
        yield f"{share_text(share)} of these pixels trained this network: scores leave these pixels out."
    total = facts["removed_px"] + facts["component_px"]
    if total and facts["removed_px"] > MUCH * total:
        yield (
            f"{share_text(facts['removed_px'] / total)} of the ink was removed: either the map is mostly noise, or "
            "min_area_px is larger than letters are."
        )


def _largest(facts: Mapping[str, Any]) -> Table:
    rows = tuple((f"{one['area']:,}", "{0}:{2}, {1}:{3}".format(*one["box"])) for one in facts["largest"][:10])
    return Table("The largest components.", ("pixels", "rows, columns"), rows, frozenset({0}))
