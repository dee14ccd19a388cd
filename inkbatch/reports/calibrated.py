"""The section of a bundle's page on its threshold over several scrolls; see `inkbatch evaluate --calibrate`."""

from __future__ import annotations

from inkbatch.data.maps.calibration import NAME, Calibration, read_calibration
from inkbatch.io.store.location import Location
from inkbatch.reports.charts.shapes import Axis
from inkbatch.reports.charts.svg import bar_chart
from inkbatch.reports.page import Chart, Link, Section, Table
from inkbatch.reports.stored import shown


def calibration_section(bundle: Location, weights_sha256: str) -> tuple[Section, ...]:
    """Show each scroll at the threshold of the others; nothing where a bundle was not calibrated.

    Args:
        bundle: The bundle's folder, below the page's.
        weights_sha256: Its weights.

    Raises:
        DataError: The calibration is of other weights, or damaged.
    """
    found = read_calibration(bundle, weights_sha256)
    return () if found is None else (Section("Threshold over several scrolls", (_chart(found), _table(found, bundle))),)


def _chart(found: Calibration) -> Chart:
    spoken = ", ".join(f"{one.scroll} {shown(one.f_beta)} of {shown(one.best_f_beta)}" for one in found.scrolls)
    return bar_chart(
        "Each scroll at the threshold that is best on the others, beside what its own best threshold would give.",
        f"F{found.beta:g} of {len(found.scrolls)} scrolls, left out and at best: {spoken}.",
        Axis("score", 0, 1),
        [one.scroll for one in found.scrolls],
        {
            "threshold of the others": [one.f_beta for one in found.scrolls],
            "its own best": [one.best_f_beta for one in found.scrolls],
        },
    )


def _table(found: Calibration, bundle: Location) -> Table:
    rows = [
        (
            one.scroll,
            ", ".join(one.segments),
            f"{one.counted_px:,}",
            *(shown(value, 4) for value in (one.threshold, one.f_beta, one.best_threshold, one.best_f_beta)),
        )
        for one in found.scrolls
    ]
    rows.append(("all", "", "", shown(found.threshold, 4), shown(found.mean_score, 4), "", ""))
    place = f"{bundle.name}/{NAME}"
    return Table(
        f"Infer takes {found.threshold:.4f}, the best on all scrolls together; the standard deviation of "
        f"the thresholds of the left-out scrolls is {found.spread:.4f}.",
        ("scroll", "segments", "pixels", "threshold", f"F{found.beta:g} there", "own best threshold", "F there"),
        tuple(rows),
        frozenset(range(2, 7)),
        len(rows) - 1,
        Link(place, place),
    )
