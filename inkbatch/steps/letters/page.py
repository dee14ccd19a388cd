"""The page of letters: where they stand, how high they are, and how the lines were found."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from inkbatch.io.store.location import Location
from inkbatch.reports.page import Figure, Page, Picture, Promise, Section, Table, Words
from inkbatch.reports.stored import RERUN, bundle_warnings, interruptions, links, money, pixels
from inkbatch.reports.timing import spent
from inkbatch.run.finished import StoredRun
from inkbatch.text import count_text

FILES = (
    ("letters.csv", "a row per letter: line, place, box, height and width in px and mm"),
    ("lines.csv", "a row per line of text"),
    ("coco.json", "COCO, a box per letter"),
    ("letters", "a cut-out of the map per letter"),
    ("rows.png", "the map with numbered rows and a bar of 1 cm"),
    ("letters.json", "pitch and slope of the lines, height of letters"),
    ("manifest.json", "settings and inputs"),
    ("run.json", "seconds, bytes, machine"),
)
STAGES = ("opening the map", "finding strokes", "reading and writing", "finishing")


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of a result.

    Args:
        run: The run, in ``ROOT/instances/{segment}/{result}``.
        root: Not needed.
    """
    config, facts = run.manifest["config"], (run.folder / "letters.json").read_mapping()
    um = facts["pixel_um"]
    lines = list(csv.DictReader(io.StringIO((run.folder / "lines.csv").read_bytes().decode())))
    return Page(
        job="letters",
        title=f"{config['segment']} / {config['result']}",
        sentence=(
            f"{count_text(facts['letters'], 'letter')} in {count_text(facts['lines'], 'line')}, of "
            f"{count_text(facts['strokes'], 'stroke')} with ink from probability {config['rules']['ink_from']:g}."
        ),
        hero=tuple(_rows(run, facts)),
        figures=(
            Figure(f"{facts['letters']:,}", "letters", "boxes in coco.json"),
            Figure(f"{facts['lines']:,}", "lines", _pitch(facts)),
            Figure(f"{facts['height_px'] * um / 1000:.2f} mm", "height", f"median, {facts['height_px']:g} px"),
            *money(run),
        ),
        warnings=(*_warnings(facts), *bundle_warnings(run), *interruptions(run)),
        contract=(Promise("units", "no letter depends on them", "strokes joined across units", "by their labels"),),
        contract_caption="What holds for this result.",
        spent=spent(run.rows, STAGES),
        sections=(
            Section("Lines", (_lines(lines),)),
            Section("Settings", (Words(_settings(config)),)),
        ),
        repeat=RERUN,
        files=links(run.folder, FILES),
    )


def _rows(run: StoredRun, facts: Mapping[str, Any]) -> Iterator[Picture]:
    shown = pixels(run.folder / "rows.png")
    if shown is not None:
        found = f"{count_text(facts['letters'], 'letter')} in {count_text(facts['lines'], 'line')}"
        yield Picture(shown, alt=f"The ink map with boxes: {found}.", caption=f"{found}; rows are numbered.")


def _pitch(facts: Mapping[str, Any]) -> str:
    if facts["pitch_px"] is None:
        return "no periodicity found"
    return f"every {facts['pitch_px'] * facts['pixel_um'] / 1000:.2f} mm"


def _warnings(facts: Mapping[str, Any]) -> Iterator[str]:
    if facts["pitch_px"] is None:
        yield (
            "The lines do not repeat at one distance: each run of inked rows counts as a line. State rules.pitch if "
            "you know it."
        )


def _lines(lines: list[dict[str, str]]) -> Table:
    rows = tuple((one["line"], one["y_px"], one["letters"], f"{float(one['height_mm']):.2f}") for one in lines)
    columns = ("line", "y at column 0, px", "letters", "median height, mm")
    return Table("Lines of text, from the top.", columns, rows, frozenset({0, 1, 2, 3}))


def _settings(config: Mapping[str, Any]) -> str:
    rules = config["rules"]
    join = "0.15 of the height of letters" if rules["join"] is None else str(rules["join"])
    return (
        f"Strokes of at least {rules['min_stroke']} px; those of one line at most {join} apart are one letter, unless "
        f"it were wider than {rules['widest']:g} heights. Plain numbers are pixels."
        + (
            f" The map was turned by {rules['turn']}° against the clock: letters have their places as stored, lines "
            "their rows as turned."
            if rules.get("turn")
            else ""
        )
    )
