"""The page of a probe: how loud every reading answers, what planted ink says, and the verdict."""

from __future__ import annotations

from typing import Any

from inkbatch.io.store.location import Location
from inkbatch.reports.charts.shapes import Axis, Line, Mark
from inkbatch.reports.charts.svg import bar_chart, line_chart
from inkbatch.reports.page import Chart, Figure, Page, Promise, Section, Table, Words
from inkbatch.reports.stored import RERUN, below, bundle_warnings, interruptions, links, money, shown
from inkbatch.reports.timing import spent
from inkbatch.run.finished import StoredRun
from inkbatch.steps.stored_probe import has_reading
from inkbatch.text import share_text

FILES = (
    ("verdict.json", "the verdict and every number behind it"),
    ("probe.png", "the same as one picture"),
    ("measures", "what each window answered"),
    ("manifest.json", "settings and inputs"),
    ("run.json", "seconds, bytes, machine"),
)
STAGES = ("building the network", "computing", "waiting for storage", "weighing the answers")
MEANING = {
    "clear": "the bundle sees ink here, and this is how it takes the layers",
    "displaced": "the bundle sees ink here, but not in its usual layers",
    "blind": "the bundle does not see planted ink here",
    "no ink": "the bundle sees planted ink, but hardly any of the windows' own",
    "undecided": "the bundle sees ink here, but cannot say in which layers or which order",
    "false positives": "the bundle answers what is no ink",
}


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of a finished probe.

    Args:
        run: The run, in ``ROOT/probes/{segment}/{name}``.
        root: ROOT, for the command that uses the reading.
    """
    found = (run.folder / "verdict.json").read_mapping()
    config, numbers = run.manifest["config"], found["numbers"]
    windows, (start, stop) = len(config["windows"]), found["layers"]
    word = found["verdict"].split(" by ")[0]
    outcome = (
        f"it reads layers {start} to {stop - 1} in {found['depth_order']} order"
        if found["usable"]
        else "its map of this segment is not to be trusted"
    )
    return Page(
        job="probe",
        title=f"{found['segment']}: {found['verdict']}",
        sentence=(
            f"Bundle {found['bundle']} was asked in {windows} window{'s' if windows > 1 else ''} of segment "
            f"{found['segment']} in which layers and which depth order it sees ink: {outcome}."
        ),
        hero=(_answers(found), _lifts(found), _nulls(found)),
        figures=(
            Figure(found["verdict"], "verdict", MEANING.get(word, "")),
            *_reading(found),
            Figure(
                shown(numbers["fit"], 2), "fit", "of the answers to what planted ink predicts; at least 0.8 expected"
            ),
            Figure(
                shown(max(map(max, numbers["lift"].values())), 2),
                "lift",
                "of the map by planted ink; at least 0.3 expected",
            ),
            Figure(
                shown(numbers["ridge"], 2), "ridge", "how far the layer with the ink stands out; at least 0.3 expected"
            ),
            *money(run),
        ),
        warnings=_warnings(run, found, config),
        contract=_contract(found, config),
        contract_caption=f"What bundle {found['bundle']} takes by itself, and what the probe found on this segment.",
        spent=spent(run.rows, STAGES),
        sections=(
            Section("Why", (Words(_sentence(found["reason"])), _faces(numbers), _windows(found, config))),
            Section("How to read it", (Words(READING),), folded=True),
        ),
        repeat=RERUN,
        repeat_note=(
            f"inkbatch infer {found['segment']} --bundle {_place(run, root)} --layers auto --root ROOT "
            + ("takes the reading of this probe." if found["usable"] else "refuses this segment because of this probe.")
        ),
        files=links(run.folder, FILES),
    )


def _place(run: StoredRun, root: Location) -> str:
    """Name the bundle as commands do."""
    asked = run.manifest.get("request", {}).get("bundle")
    if asked is None or "/" not in asked:
        return str(asked or run.manifest["inputs"]["bundle"])
    return below(Location.parse(asked), root)


READING = (
    "Ink of known strength is planted into copies of the layers, at every depth and in both orders. Where the map "
    "rises most (lift) is the depth at which this bundle sees ink. From that follows how loud each window of layers "
    "must answer if the segment's own ink is there; the probe takes the reading whose prediction fits best, "
    "not the loudest one. Null inputs hold no ink: a bundle that answers them makes things up."
)


def _reading(found: dict[str, Any]) -> tuple[Figure, ...]:
    """Show layers and confidence of the reading; none where planted ink is not seen, so that there is no reading."""
    if not has_reading(found):
        return ()
    start, stop = found["layers"]
    words = "of resampled probes come to this reading; at least 95 % expected"
    return (
        Figure(f"{start}:{stop}", "layers", f"{found['depth_order']} order"),
        Figure(f"{found['confidence']:.0%}", "confidence", words),
    )


def _answers(found: dict[str, Any]) -> Chart:
    numbers, usual = found["numbers"], found["usual"]
    first = found["layers"][0] - found["start"]  # source number of the surface's first layer
    lines = [
        Line(order, sorted((int(start) + first, value) for start, value in row.items()), dots=True)
        for order, row in numbers["answers"].items()
    ]
    best = numbers["answers"][found["depth_order"]][str(found["start"])]
    loudest = max(max(row.values()) for row in numbers["answers"].values())
    marks = [Mark("this reading", found["layers"][0], best)]
    if usual["layers"][0] != found["layers"][0]:
        marks.insert(0, Mark("usual", usual["layers"][0]))
    return line_chart(
        "How loud the bundle answers, by the first layer of the window that it is given; mean of the map over all "
        "windows.",
        f"Answers of all readings. The chosen one, {found['depth_order']} from layer {found['layers'][0]}, answers "
        f"with {best:.2f}; the loudest of all with {loudest:.2f}.",
        Axis("first layer", whole=True),
        Axis("answer", low=0),
        lines,
        marks,
    )


def _lifts(found: dict[str, Any]) -> Chart:
    curves = found["numbers"]["lift"]
    peaks = ", ".join(
        f"{order} {max(curve):.2f} at place {found['numbers']['seen_best_at'][order]:g}"
        for order, curve in curves.items()
    )
    return line_chart(
        "How much planted ink lifts the map, by its place among the layers that the network is given.",
        f"Lift of planted ink by depth; highest: {peaks}.",
        Axis("place among the layers", whole=True),
        Axis("lift", low=0),
        [Line(order, [(float(place), value) for place, value in enumerate(curve)]) for order, curve in curves.items()],
    )


def _nulls(found: dict[str, Any]) -> Chart:
    nulls = found["numbers"]["nulls"]
    best = found["numbers"]["answers"][found["depth_order"]][str(found["start"])]
    bars = {
        "answer": [best, *(null["answer"] for null in nulls.values())],
        "lift of ink in it": [float("nan"), *(null["lift"] for null in nulls.values())],
    }
    return bar_chart(
        "Inputs without ink must be answered quietly; the first bar is the reading of the segment itself.",
        f"The segment is answered with {best:.2f}; "
        + ", ".join(f"{name} with {null['answer']:.2f}" for name, null in nulls.items()),
        Axis("answer", low=0),
        ["segment", *nulls],
        bars,
    )


def _warnings(run: StoredRun, found: dict[str, Any], config: dict[str, Any]) -> tuple[str, ...]:
    listed = []
    if not found["usable"]:
        listed.append(f"Do not use this bundle on this segment as it is: {found['reason']}.")
    elif found["displaced_by"] or found["depth_order"] != found["usual"]["depth_order"]:
        start, stop = found["usual"]["layers"]
        listed.append(
            f"By itself infer takes layers {start}:{stop} in {found['usual']['depth_order']} order, and would look "
            "past the ink; give --layers auto."
        )
    if share := found.get("trained_share", 0):
        listed.append(
            f"{share_text(share)} of these pixels trained this network: what it finds there it may remember. Probe "
            "windows that it has not seen (at)."
        )
    listed += [f"The bundle's {key} was overridden with {value}." for key, value in sorted(config["override"].items())]
    return (*bundle_warnings(run), *listed, *interruptions(run))


def _contract(found: dict[str, Any], config: dict[str, Any]) -> tuple[Promise, ...]:
    contract, usual = config["contract"], found["usual"]
    start, stop = usual["layers"]
    before = "compared with the surface before a model was built"
    rows = [
        Promise(
            "depth order",
            usual["depth_order"],
            found["depth_order"],
            "weighed by planted ink",
            found["usable"] and usual["depth_order"] == found["depth_order"],
        ),
        Promise(
            "layers",
            f"{start}:{stop}",
            f"{found['layers'][0]}:{found['layers'][1]}",
            "weighed by planted ink",
            found["usable"] and usual["layers"] == found["layers"],
        ),
        Promise("voxel size", f"{contract['voxel_size_um']:g} µm", "fits", before),
        Promise("grey values", f"{contract['dtype']}, divided by {contract['divisor']:g}", "fit", before),
    ]
    return tuple(
        Promise(row.what, row.promised, row.found, f"overridden, {row.where}", False)
        if row.what.replace(" ", "_") in config["override"]
        else row
        for row in rows
    )


def _faces(numbers: dict[str, Any]) -> Table:
    rows = [
        (f"{name} face", f"{row['layer']:g}", shown(row["forward"], 2), shown(row["reversed"], 2))
        for name, row in numbers["faces"].items()
    ]
    return Table(
        "Ink planted on either face of the sheet, and how much it lifts the map.",
        ("face", "layer of the surface", "read forward", "read reversed"),
        tuple(rows),
        frozenset({1, 2, 3}),
    )


def _windows(found: dict[str, Any], config: dict[str, Any]) -> Table:
    rows = [
        (str(number), f"{y0}, {x0}", f"{y1 - y0} × {x1 - x0} px")
        for number, (y0, x0, y1, x1) in enumerate(config["windows"], start=1)
    ]
    return Table("Where it was asked.", ("window", "from row, column", "size"), tuple(rows), frozenset({0}))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
