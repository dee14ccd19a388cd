"""Rounds of labelling on phantoms, whose truth is known, beside two other ways to use the same first labels.

    python scripts/rounds_demo.py --root root/rounds-demo --rounds 2        (make rounds-demo)

Letters are planted into four pieces of the papyrus of ``scripts/data``, none of which share a pixel. Of three pieces a
fifth is labelled; the fourth, labelled throughout, is the yardstick. After each round a scripted labeller opens the
regions that were proposed, keeps the components of the first labels that are ink by the truth, marks the others bare,
and ignores the ink that they miss. ``--compare`` adds

* *train once*: the first labels alone, and as many steps as all rounds together;
* *leaking*: networks label all that they were trained on, others learn from that, and so on; nobody looks. The claim of
  each way is the F0.5 that it would tell of itself, beside its scores by the truth.

Stopped anywhere, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from inkbatch.cli.outcome import run_script
from inkbatch.data.labels.components import INK_NEIGHBOURS, label
from inkbatch.data.labels.painting import IGNORE, INK, NOT_INK, SUPERVISION, TILE_PX, Codes, Tile
from inkbatch.data.labels.painting_version import (
    PaintedVersion,
    create_version,
    labels_folder,
    read_facts,
    read_state,
    version_names,
)
from inkbatch.data.maps.scoring import ALARMS, ScoreHistogram
from inkbatch.data.maps.stored import open_map
from inkbatch.data.maps.yardstick import BETA
from inkbatch.data.synthetic.phantom import PhantomConfig
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.prepare.job import run as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.round.job import RoundConfig
from inkbatch.steps.round.job import run as run_round
from inkbatch.steps.round.names import BLOCKS, DOCUMENT, PROPOSALS, round_folder, round_name
from inkbatch.steps.synthetic.phantom import read_picture
from inkbatch.steps.synthetic.phantom import run as plant

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY / "scripts" / "data"
SETTINGS = REPOSITORY / "jobs" / "demo" / "rounds.yaml"
SERIES = "demo"
PIECES = ((0, 0, 256, 448), (0, 448, 256, 896), (256, 0, 512, 448), (256, 448, 512, 896))
YARDSTICK = "patch-3"
VOXEL_UM = 7.91
AMPLITUDE = 90  # clear ink: a few letters must do
LABELLED_SHARE = 0.2
FIRST = "a fifth of the letters"
COLUMNS = {"claim": "claim", "f05": "F0.5", "average_precision": "AP", "auc": "AUC", ALARMS: "alarms"}
SCORED = [key for key in COLUMNS if key != "claim"]

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        way: Way to use the first labels, and its round.
        said: Verdict of a round; empty of another way.
        labelled_cm2: Papyrus with labels outside of the yardstick.
        scores: By column: the F0.5 that the way claims, and scores of the yardstick by the truth.
    """

    way: str
    said: str
    labelled_cm2: float
    scores: Mapping[str, float]


def plant_phantoms(root: Path, seed: int) -> dict[str, Bools]:
    """Plant and prepare the pieces; returns the truth by segment."""
    truth: dict[str, Bools] = {}
    for number, box in enumerate(PIECES):
        segment, folder = f"patch-{number}", root / "phantoms" / f"patch-{number}"
        y0, x0 = 660 * (number // 2) + 70 * seed, 1000 * (number % 2) + 100 - 30 * seed
        values: dict[str, Any] = {
            "source": str(DATA / "papyrus"),
            "source_box": box,
            "labels": str(DATA / "letters" / "train.png"),
            "label_box": (y0, x0, y0 + 520, x0 + 900),
            "label_scale": 0.5,
            "output": str(folder),
            "amplitude": AMPLITUDE,
            "depth_layer": 5.5 + number / 4,
            "crackle": 0.6,
            "seed": 10 * seed + number,
        }
        if not (folder / "phantom.json").exists():
            plant(PhantomConfig.checked(values, "rounds demo"))
        stated = {"segment": segment, "root": str(root), "source": str(folder / "layers"), "voxel_size_um": VOXEL_UM}
        prepare(PrepareConfig.checked({**stated, "depth_order": "forward", "shard_px": 256}, "demo"), RunContext())
        truth[segment] = read_picture(str(folder / "truth.png")) > 0
    return truth


def first_labels(root: Path, truth: Mapping[str, Bools]) -> None:
    """Label a fifth of each piece, from the left, and all of the yardstick."""
    for segment, ink in truth.items():
        width = ink.shape[1] if segment == YARDSTICK else round(LABELLED_SHARE * ink.shape[1] / 32) * 32
        counted = np.zeros(ink.shape, bool)
        counted[:, :width] = True
        store(root, segment, np.where(counted, painted(ink), np.uint8(0)), FIRST)


def painted(ink: Bools) -> Codes:
    """Paint all of a plane: ink, and the rest as bare."""
    return np.where(ink, SUPERVISION | INK, SUPERVISION | NOT_INK).astype(np.uint8)


def store(root: Path, segment: str, codes: Codes, origin: str) -> None:
    """Store codes as a segment's newest label version, unless it is there."""
    if version_from(root, segment, origin) is not None:
        return
    height, width = codes.shape
    rows, columns = -(-height // TILE_PX), -(-width // TILE_PX)
    whole = np.pad(codes, ((0, rows * TILE_PX - height), (0, columns * TILE_PX - width)))
    tiles: list[tuple[Tile, Codes]] = []
    for y, x in np.ndindex(rows, columns):
        tiles.append(((y, x), whole[y * TILE_PX : (y + 1) * TILE_PX, x * TILE_PX : (x + 1) * TILE_PX]))
    folder = labels_folder(str(root), segment)
    author = {"author": "scripted labeller", "started_from": origin}
    create_version(folder, segment, (height, width), VOXEL_UM, tiles=tiles, **author)


def version_from(root: Path, segment: str, *origins: str) -> str | None:
    """Return the version that was started from the first of some origins that there is."""
    folder = labels_folder(str(root), segment)
    whole = [name for name in version_names(folder) if read_state(folder / name)[1] is not None]
    found = {read_facts(folder / name)["started_from"]: name for name in whole}
    return next((found[origin] for origin in origins if origin in found), None)


def read_codes(root: Path, segment: str, *origins: str) -> Codes:
    """Read all marks of a version; see `version_from`."""
    version = PaintedVersion.open(labels_folder(str(root), segment) / str(version_from(root, segment, *origins)))
    return version.tiles.read(Box(0, 0, *version.shape_yx))


def corrected(number: int) -> str:
    """Name the labels that a round of the series was corrected to."""
    return f"corrected after {round_name(SERIES, number)}"


def correct(root: Path, truth: Mapping[str, Bools], number: int) -> None:
    """Accept or reject each component of the first labels by the truth; ink that they miss is ignored."""
    rows = (folder_of(root, SERIES, number) / PROPOSALS).read_mapping()["regions"]
    for segment in sorted({row["segment"] for row in rows}):
        codes = read_codes(root, segment, f"proposals of {round_name(SERIES, number)}")
        for row in (row for row in rows if row["segment"] == segment):
            box = Box(*row["box"]).slices
            codes[box] = judged(codes[box], truth[segment][box])
        store(root, segment, codes, corrected(number))


def judged(codes: Codes, truth: Bools) -> Codes:
    """Judge the marks of one region."""
    ink = (codes & INK) != 0
    parts = label(ink, INK_NEIGHBOURS)
    right = np.bincount(parts.labels[truth], minlength=len(parts.areas)) * 2 > parts.areas
    right[0] = False
    kept = right[parts.labels]
    unsure = (truth & ~ink) | ((codes & IGNORE) != 0)
    found = np.where(kept, INK, np.where(unsure, IGNORE, NOT_INK)).astype(np.uint8)
    return found | np.uint8(SUPERVISION)


def folder_of(root: Path, series: str, number: int = 1) -> Location:
    """Return the folder of a round."""
    return round_folder(Location.parse(root), series, number)


def do_round(
    root: Path, series: str, number: int, versions: Mapping[str, str | None], seed: int, times: int = 1, **changes: Any
) -> dict[str, Any]:
    """Do a round on stated label versions, with so many times the shipped epochs; returns what it found."""
    values: dict[str, Any] = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    values |= {"root": str(root), "name": series, "round": number, "seed": seed, **changes}
    values["segments"] = [{"id": name, "version": versions[name]} for name in values["segments"]]
    values["train"] = {**values["train"], "seed": seed, "epochs": values["train"]["epochs"] * times}
    run_round(RoundConfig.checked(values, series), RunContext())
    found: dict[str, Any] = (folder_of(root, series, number) / DOCUMENT).read_mapping()
    return found


def row_of(way: str, found: Mapping[str, Any], claim: float, said: str = "") -> Row:
    """Make a line of the table: what a way claims, and what the yardstick says."""
    return Row(way, said, found["labelled_cm2"], {"claim": claim, **{key: found["yardstick"][key] for key in SCORED}})


def loop(root: Path, truth: Mapping[str, Bools], rounds: int, seed: int) -> list[Row]:
    """Run the rounds, with the scripted labeller between them."""
    rows: list[Row] = []
    for number in range(1, rounds + 1):
        before = [*map(corrected, range(number - 1, 0, -1)), FIRST]
        versions = {segment: version_from(root, segment, *before) for segment in truth}
        found = do_round(root, SERIES, number, versions, seed)
        rows.append(row_of(f"round {number}", found, found["out_of_fold"]["f05"], found["verdict"]))
        correct(root, truth, number)
    return rows


def train_once(root: Path, truth: Mapping[str, Bools], rounds: int, seed: int) -> Row:
    """Train on the first labels alone, as many steps as all rounds together."""
    versions = {segment: version_from(root, segment, FIRST) for segment in truth}
    found = do_round(root, "once", 1, versions, seed, rounds, proposals={"as_version": False})
    return row_of("train once", found, found["out_of_fold"]["f05"])


def leaking(root: Path, truth: Mapping[str, Bools], rounds: int, seed: int) -> list[Row]:
    """Let networks label what they were trained on, and train on that; the first round is that of the series.

    Its networks start from fresh weights, and take as many steps as those of the loop have taken by then.
    """
    rows: list[Row] = []
    pieces = [segment for segment in truth if segment != YARDSTICK]
    series = SERIES
    for number in range(2, rounds + 1):
        origin = f"leaking {number}"
        threshold = (folder_of(root, series) / DOCUMENT).read_mapping()["threshold"]
        for segment in pieces:
            by_hand = read_codes(root, segment, FIRST)
            said = painted(word_of_the_trained(root, series, segment) >= threshold)
            store(root, segment, np.where(by_hand != 0, by_hand, said), origin)
        series = f"leak{number}"
        versions = {segment: version_from(root, segment, origin, FIRST) for segment in truth}
        found = do_round(root, series, 1, versions, seed, number, proposals={"as_version": False})
        own = ScoreHistogram()
        for segment in pieces:
            ink = (read_codes(root, segment, origin) & INK) != 0
            own.add(word_of_the_trained(root, series, segment), ink, np.ones(ink.shape, bool), segment)
        rows.append(row_of(f"leaking, round {number}", found, own.f_beta(found["threshold"], BETA)))
    return rows


def word_of_the_trained(root: Path, series: str, segment: str) -> NDArray[np.float32]:
    """Average the maps of the networks that were trained on a segment: those that must not speak of it."""
    home = (folder_of(root, series) / BLOCKS).read_mapping()["homes"][segment][0][2]
    folds = [fold for fold in range(len(PIECES) - 1) if fold != home]
    maps = [open_map(str(root), segment, f"{round_name(series, 1)}-fold-{fold}") for fold in folds]
    said = [one.prediction.read(Box(0, 0, *one.shape_yx)).astype(np.float32) for one in maps]
    mean: NDArray[np.float32] = np.mean(said, axis=0)
    return mean


def ways(root: Path, rounds: int, seed: int, compare: bool) -> list[Row]:
    """Go all ways with one seed."""
    truth = plant_phantoms(root, seed)
    first_labels(root, truth)
    rows = loop(root, truth, rounds, seed)
    if compare:
        rows += [train_once(root, truth, rounds, seed), *leaking(root, truth, rounds, seed)]
    (root / "table.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return rows


def table(runs: Sequence[Sequence[Row]]) -> list[str]:
    """Write the table: of several seeds the mean, and below it the lowest and the highest."""
    lines = ["| way | cm² | " + " | ".join(COLUMNS.values()) + " | verdicts |", "|---|" + "---:|" * 6 + "---|"]
    for same in zip(*runs, strict=True):
        cells = []
        for key in COLUMNS:
            values = [row.scores[key] for row in same]
            spread = f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{spread}")
        cm2 = np.mean([row.labelled_cm2 for row in same])
        said = ", ".join(dict.fromkeys(row.said for row in same if row.said))
        lines.append(f"| {same[0].way} | {cm2:.3f} | {' | '.join(cells)} | {said} |")
    return lines


def main() -> None:
    """Plant, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=REPOSITORY / "root" / "rounds-demo")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="other letters, other weights; ROOT/seed-0 …")
    parser.add_argument("--compare", action="store_true", help="train once and leak, too")
    given = parser.parse_args()
    started, root = time.perf_counter(), given.root.resolve()
    runs = [ways(root / f"seed-{seed}", given.rounds, seed, given.compare) for seed in given.seeds]
    print("\n".join(table(runs)))
    for seed in given.seeds:
        print(f"page: {folder_of(root / f'seed-{seed}', SERIES, given.rounds) / 'report.html'}")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    sys.exit(run_script(main, "python scripts/rounds_demo.py"))
