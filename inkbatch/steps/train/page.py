"""The page of a training run: what the network sees, how it learned, and how good it is on papyrus it never saw."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from inkbatch.io.store.location import Location
from inkbatch.reports.calibrated import calibration_section
from inkbatch.reports.charts.shapes import Axis, Line, Mark
from inkbatch.reports.charts.svg import line_chart
from inkbatch.reports.page import Chart, Code, Figure, Link, Page, Picture, Promise, Section, Table, Words
from inkbatch.reports.picture_words import in_picture_words
from inkbatch.reports.stored import RERUN, below, interruptions, links, money, number, pixels, shown, table
from inkbatch.reports.timing import spent
from inkbatch.run.finished import StoredRun
from inkbatch.text import count_text

FILES = (
    ("bundle/bundle.json", "the contract: what the network must be fed, and its scores"),
    ("metrics.csv", "every score of every epoch and segment"),
    ("losses.csv", "the loss of every step"),
    ("curves.png", "the curves as one picture"),
    ("validation", "validation maps of all epochs"),
    ("checkpoints", "last and best checkpoint"),
    ("data.json", "what was trained and validated on"),
    ("manifest.json", "settings and inputs"),
    ("run.json", "seconds, machine"),
)
STAGES = ("opening the dataset", "training and validating", "waiting for storage", "finishing")
SCORES = {"f05": "F0.5", "dice": "Dice", "iou": "IoU", "average_precision": "average precision", "auc": "AUC"}
NOTES = {
    "f05": "precision counts twice as much as recall",
    "average_precision": "over all thresholds",
    "auc": "0.5 is chance",
}
OVERALL = "overall"
PICTURES = 8
GAP = 1.3  # validation loss over its lowest one
WEAK = 0.15  # of the score, by which a segment may be below the whole


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of a finished run.

    Args:
        run: The run, in ``ROOT/runs/{run}``, or one fold below it.
        root: ROOT, for the command that uses the bundle.
    """
    config, complete = run.manifest["config"], (run.folder / "complete.json").read_mapping()
    bundle, data = (run.folder / "bundle/bundle.json").read_mapping(), (run.folder / "data.json").find_mapping()
    rows, best = table(run.folder / "metrics.csv"), int(complete["best_epoch"])
    epochs = [row for row in rows if row["segment"] == OVERALL]
    fold = "" if config.get("fold") is None else f", while fold {config['fold']} validated"
    contract = bundle["contract"]
    overall = next(row for row in epochs if int(row["epoch"]) == best)
    made = Page(
        job="train",
        title=config["run"] if config.get("fold") is None else f"{config['run']}, fold {config['fold']}",
        sentence=(
            f"A network ({' '.join([bundle['architecture'], *_words(bundle['model'])])}) learned on dataset "
            f"{run.manifest['inputs']['dataset']} for {len(epochs)} epochs to find ink in "
            f"{count_text(contract['layers']['count'], 'layer')}{_scale(contract)}{fold}; epoch {best} was kept."
        ),
        hero=(*_pictures(run.folder, rows, best), losses_chart(epochs, best), scores_chart(epochs, best)),
        figures=(
            *(Figure(shown(number(overall[name]), 4), words, NOTES.get(name, "")) for name, words in SCORES.items()),
            Figure(shown(number(overall["threshold"]), 4), "threshold", "a pixel counts as ink from here on"),
            Figure(f"{best} of {len(epochs)}", "best epoch", f"by {_monitor(config)}"),
            *money(run),
        ),
        warnings=(*_warnings(config, rows, epochs, best), *interruptions(run)),
        contract=_contract(bundle, data),
        contract_caption=(
            "What travels with the weights. Infer compares it with every segment before a network is built, and "
            "refuses what does not fit."
        ),
        spent=spent(run.rows, STAGES),
        sections=tuple(_sections(run, root, bundle, data, rows, epochs, best)),
        repeat=RERUN,
        repeat_note="On a CPU the same settings and the same dataset give the same weights, to the bit.",
        files=links(run.folder, FILES),
    )
    return in_picture_words(made) if contract.get("reads") == "pictures" else made


def _words(shape: Mapping[str, Any]) -> list[str]:
    """Describe a network's settings, such as its family and encoder."""
    return [value for _, value in sorted(shape.items(), reverse=True) if isinstance(value, str)]


def _monitor(config: Mapping[str, Any]) -> str:
    return SCORES.get(str(config["monitor"]), "validation loss")


def _pictures(folder: Location, rows: Sequence[Mapping[str, str]], best: int) -> list[Picture]:
    areas = [row["segment"] for row in rows if int(row["epoch"]) == best and row["segment"] != OVERALL]
    listed: list[Picture] = []
    for area in areas:
        found = pixels(folder / "validation" / f"epoch-{best:03d}-{area}.png")
        if found is not None and len(listed) < PICTURES:
            score = next(row["f05"] for row in rows if int(row["epoch"]) == best and row["segment"] == area)
            listed.append(
                Picture(
                    found,
                    alt=f"Validation map of {area} beside its labels.",
                    caption=(
                        f"What validates of {area}; the network saw none of it in training. Its map is on the left, "
                        f"the labels are on the right; dark blue does not count. F0.5 {shown(number(score))}."
                    ),
                )
            )
    return listed


def losses_chart(epochs: Sequence[Mapping[str, str]], best: int) -> Chart:
    """Draw both losses of every epoch; `epochs` are the rows of ``metrics.csv`` over all areas."""
    lines = [
        Line(name, [(int(row["epoch"]), number(row[key])) for row in epochs], dots=len(epochs) < 20)
        for name, key in (("training", "train_loss"), ("validation", "validation_loss"))
    ]
    last = epochs[-1]
    return line_chart(
        "The loss. Where training falls on and validation rises, the network learns its samples by heart.",
        f"Loss over {len(epochs)} epochs; at last {number(last['train_loss']):.3f} in training and "
        f"{number(last['validation_loss']):.3f} in validation.",
        Axis("epoch", whole=True),
        Axis("loss"),
        lines,
        [Mark("kept", best)] if len(epochs) > 1 else [],
    )


def scores_chart(epochs: Sequence[Mapping[str, str]], best: int) -> Chart:
    """Draw validation scores of every epoch; see `losses_chart`."""
    lines = [
        Line(words, [(int(row["epoch"]), number(row[name])) for row in epochs], dots=len(epochs) < 20)
        for name, words in SCORES.items()
        if name != "iou"  # follows from Dice
    ]
    kept = next(row for row in epochs if int(row["epoch"]) == best)
    return line_chart(
        "Scores of the stitched validation maps; every pixel counts once.",
        f"Validation scores over {len(epochs)} epochs; at epoch {best} "
        + ", ".join(f"{words} {shown(number(kept[name]))}" for name, words in SCORES.items()),
        Axis("epoch", whole=True),
        Axis("score", 0, 1),
        lines,
        [Mark("kept", best)] if len(epochs) > 1 else [],
    )


def _warnings(
    config: Mapping[str, Any], rows: Sequence[Mapping[str, str]], epochs: Sequence[Mapping[str, str]], best: int
) -> list[str]:
    listed, count = [], len(epochs)
    if count > 2 and best == count - 1:
        listed.append("The last epoch is the best one: the network was still learning. More epochs may help.")
    validation = [number(row["validation_loss"]) for row in epochs]
    known = [value for value in validation if math.isfinite(value)]
    if count > 3 and known and validation[-1] > GAP * min(known) and number(epochs[-1]["train_loss"]) < min(known):
        listed.append("Validation loss rose again while training loss fell: the network began to learn by heart.")
    own = [row for row in rows if int(row["epoch"]) == best]
    whole = next(number(row["f05"]) for row in own if row["segment"] == OVERALL)
    weak = [row["segment"] for row in own if row["segment"] != OVERALL and number(row["f05"]) < whole - WEAK]
    if weak:
        listed.append(f"{', '.join(weak)}: F0.5 is far below that of all areas together. Look at its map.")
    if sum(row["segment"] != OVERALL for row in own) == 1:
        listed.append("One area validates: the scores say how good the network is there, not on other papyrus.")
    if str(config["monitor"]) != "loss":
        listed.append(
            "Threshold and epoch were chosen on the validation areas, so their scores flatter a little; evaluate on a "
            "segment that took no part."
        )
    return listed


def _contract(bundle: Mapping[str, Any], data: Mapping[str, Any] | None) -> tuple[Promise, ...]:
    contract = bundle["contract"]
    layers = contract["layers"]
    trained = "every sample was read so"
    held = "weighed in bundle.json, sealed value by value"
    clip = "no clip" if contract.get("clip") is None else "clipped to {:g} to {:g}".format(*contract["clip"])
    scale = f"{clip}, divided by {contract['divisor']:g}"
    if contract.get("mean") or contract.get("std", 1.0) != 1.0:
        scale += f", minus {contract['mean']:g}, divided by {contract['std']:g}"
    rows = [
        Promise("layers", f"{layers['count']}", _range(layers), trained),
        Promise("depth order", str(contract["depth_order"]), str(contract["depth_order"]), trained),
        Promise("voxel size", *_promised_scale(contract), "build-dataset"),
        Promise("grey values", str(contract["dtype"]), scale, "the network's own input"),
        Promise(
            "tiles",
            f"{contract['tile_px']} px",
            f"a step of {contract['stride_px']} px, blended by a {contract['window']} window",
            "training and validation",
        ),
        Promise(
            "threshold", shown(contract.get("threshold"), 4), str(contract.get("threshold_fitted_on") or "–"), held
        ),
        Promise(
            "weights", "unchanged", f"SHA-256 {str(bundle['weights_sha256'])[:12]}", "checked whenever they are loaded"
        ),
    ]
    if data is not None:
        rows.append(Promise("data", str(data["dataset"]), f"digest {str(data['digest'])[:12]}", "checked on opening"))
    return tuple(rows)


def _scale(contract: Mapping[str, Any]) -> str:
    um = contract.get("voxel_size_um")
    return "" if um is None else f" of {um:g} µm"


def _promised_scale(contract: Mapping[str, Any]) -> tuple[str, str]:
    um = contract.get("voxel_size_um")
    if um is None:
        return "not stated", "none of its pictures states one"
    return f"{um:g} µm", "that of all its segments, within 5 %"


def _range(layers: Mapping[str, Any]) -> str:
    found = layers.get("source_range")
    return "the middle ones of what is prepared" if found is None else f"{found[0]}:{found[1]} of the source"


def _sections(
    run: StoredRun,
    root: Location,
    bundle: Mapping[str, Any],
    data: Mapping[str, Any] | None,
    rows: Sequence[Mapping[str, str]],
    epochs: Sequence[Mapping[str, str]],
    best: int,
) -> list[Section]:
    place = below(run.folder, root)
    use = Section(
        "Use it",
        (
            Code(use_of(bundle["contract"], f"{place}/bundle")),
            Words("ROOT is the folder or s3:// address that this run lies in."),
        ),
    )
    return [
        use,
        Section("Scores by area", (_by_area(rows, best),)),
        Section("Epoch by epoch", (_by_epoch(epochs, best),)),
        *([Section("Data", (_data(run, data),))] if data is not None else []),
        *calibration_section(run.folder / "bundle", bundle["weights_sha256"]),
        *_left_out(bundle),
        Section("Configuration", (Code(_as_yaml(run.manifest["config"])),), folded=True),
    ]


def _left_out(bundle: Mapping[str, Any]) -> list[Section]:
    """List the tensors that the run did not take from the bundle it started from."""
    left = bundle["training"].get("left_out", [])
    if not left:
        return []
    said = Words(
        "The run started from another bundle. These tensors do not fit this network, or are in one of the two alone; "
        "here they began with fresh weights."
    )
    return [Section("Left out at the start", (said, Code("\n".join(left))), folded=True)]


def use_of(contract: Mapping[str, Any], place: str) -> str:
    """Name the command that uses a bundle: one for pictures is no bundle for segments."""
    if contract.get("reads") == "pictures":
        return f"inkbatch infer-pictures --bundle {place} --images FOLDER --to MAPS"
    return f"inkbatch infer SEGMENT --root ROOT --bundle {place}"


def _by_area(rows: Sequence[Mapping[str, str]], best: int) -> Table:
    own = [row for row in rows if int(row["epoch"]) == best]
    own.sort(key=lambda row: row["segment"] != OVERALL)
    names = [name for name in own[0] if name not in ("epoch", "segment", "train_loss", "validation_loss", "rate")]
    return Table(
        f"Scores of the kept epoch {best}, all areas together first.",
        ("area", *(SCORES.get(name, name.replace("_", " ")) for name in names)),
        tuple((row["segment"], *(shown(number(row[name]), 4) for name in names)) for row in own),
        frozenset(range(1, len(names) + 1)),
        0,
    )


def _by_epoch(epochs: Sequence[Mapping[str, str]], best: int) -> Table:
    names = [name for name in SCORES if name != "iou"]
    return Table(
        "Losses, learning rate and validation scores of every epoch.",
        ("epoch", "train loss", "validation loss", "rate", *(SCORES[name] for name in names)),
        tuple(
            (
                row["epoch"],
                shown(number(row["train_loss"]), 4),
                shown(number(row["validation_loss"]), 4),
                f"{number(row['rate']):.2e}",
                *(shown(number(row[name]), 4) for name in names),
            )
            for row in epochs
        ),
        frozenset(range(4 + len(names))),
        next(place for place, row in enumerate(epochs) if int(row["epoch"]) == best),
        Link("metrics.csv", "metrics.csv"),
    )


def _data(run: StoredRun, data: Mapping[str, Any]) -> Table:
    rows: list[tuple[str | Link, ...]] = [
        ("dataset", _card(data)),
        ("form", str(data["form"])),
        ("digest", str(data["digest"])),
    ]
    for name, one in data["split"].items():
        count = len(one["segments"])
        words = f"{one['samples']:,} from {count} segment{'s' if count != 1 else ''}, {one['ink_share']:.1%} ink"
        rows.append((f"{name} samples", words))
    steps = [row.get("steps") for row in run.rows if row.get("steps")]
    if steps:
        rows.append(("optimiser steps", f"{max(int(step or 0) for step in steps):,}"))
    return Table("What it learned from, and what it was tested on.", ("what", "found"), tuple(rows))


def _card(data: Mapping[str, Any]) -> str | Link:
    """Link the dataset's card; plain text if only this machine has it."""
    name, card = str(data["dataset"]), str(data["card"])
    return Link(name, card) if card.startswith(("../", "https://")) else f"{name}, {card}"


def _as_yaml(config: Mapping[str, Any]) -> str:
    """Dump the run's settings as a file that makes the run again."""
    return yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=True, allow_unicode=True)
