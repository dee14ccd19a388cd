"""Train with and without one setting at a time, three seeds each, and say what it changed on phantoms.

    python scripts/ablate_training.py --root build/ablations        (make ablations)

Training segments and letters are those of ``make demo-train``, in small, the network is a smaller U-Net. Every run
takes the same number of steps; of 13 layers the network takes 11, so that the window can move. Scores are those of the
demo segment, whose papyrus and letters no run has seen, at the threshold that the validation segments chose. Stopped
anywhere, the same command goes on.
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

from inkbatch.cli.outcome import run_script
from inkbatch.data.maps.comparison import open_comparison
from inkbatch.data.maps.truth import TruthChoice
from inkbatch.models.bundle import Bundle, bundle_location
from inkbatch.run.job import RunContext
from inkbatch.steps import chains
from inkbatch.steps.dataset.job import BuildDatasetConfig
from inkbatch.steps.infer.job import InferConfig
from inkbatch.steps.infer.job import run as infer
from inkbatch.steps.prepare.job import run as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.synthetic import phantom_series
from inkbatch.steps.train.job import TrainConfig
from inkbatch.steps.train.job import run as train

REPOSITORY = Path(__file__).resolve().parent.parent
JOBS = REPOSITORY / "jobs" / "demo"
SEGMENTS = {"train": 16, "validation": 6}
LAYERS, BATCH, TILE_PX = 11, 8, 96
NETWORK = {"encoder": "tu-mobilenetv3_small_050", "decoder": {"encoder_depth": 3, "decoder_channels": [24, 16, 8]}}
RESULTS = "outcomes.jsonl"
BASELINE = "baseline"
TERMS: list[dict[str, Any]] = [{"name": "bce"}, {"name": "dice"}]
METHODS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "depth jitter (`augment.depth_shift: 1`)": {"augment": {"depth_shift": 1}},
    "MixUp (`augment.mix_up: 0.5`)": {"augment": {"mix_up": 0.5}},
    "CutMix (`augment.cut_mix: 0.5`)": {"augment": {"cut_mix": 0.5}},
    "deep supervision (`loss.deep_supervision: 2`)": {"loss": {"deep_supervision": 2}},
    "boundary (`boundary`, weight 0.01)": {"loss": {"terms": [*TERMS, {"name": "boundary", "weight": 0.01}]}},
    "skeleton recall (`skeleton-recall`, weight 1)": {"loss": {"terms": [*TERMS, {"name": "skeleton-recall"}]}},
}


@dataclass(frozen=True)
class Outcome:
    """Scores of one run on the held-out segment.

    Attributes:
        method: Key of `METHODS`.
        seed: Of weights, samples and augmentation.
        steps: Optimiser steps.
        f05: F0.5 at the bundle's threshold.
        auc: Area under the ROC curve.
        seconds: Of training.
    """

    method: str
    seed: int
    steps: int
    f05: float
    auc: float
    seconds: float


def settings(method: str, seed: int, root: Path, steps: int) -> TrainConfig:
    """Return the demo's settings with one method's; one epoch, so that no run may choose among several."""
    values = yaml.safe_load((JOBS / "train.yaml").read_text(encoding="utf-8"))
    values |= {"root": str(root), "run": f"m{list(METHODS).index(method)}-seed{seed}", "seed": seed, "epochs": 1}
    values |= {"batch": BATCH, "sampler": {"samples_per_epoch": BATCH * steps}, "save_every_steps": 50}
    values |= {"tile_px": TILE_PX, "stride_px": 2 * TILE_PX // 3}
    values["model"]["config"] |= {**NETWORK, "depth_layers": LAYERS}
    for part, changed in METHODS[method].items():
        values[part] = {**values[part], **changed}
    return TrainConfig.checked(values, method)


def make_data(root: Path) -> None:
    """Plant letters, prepare the segments, and build the dataset; what is done is left as it is."""
    catalog = root / "phantoms" / "segments.yaml"
    for part, count in SEGMENTS.items():
        sets = [f"output={root / 'phantoms'}", f"count={count}"]
        phantom_series.run(phantom_series.PhantomSeriesConfig.load(str(JOBS / f"phantoms-{part}.yaml"), sets))
    names = [f"{part}-{number:02d}" for part, count in SEGMENTS.items() for number in range(count)]
    for name in names:
        prepare(PrepareConfig(segment=name, root=str(root), catalog=str(catalog)), RunContext())
    prepare(PrepareConfig(segment="demo", root=str(root)), RunContext())
    values = yaml.safe_load((JOBS / "dataset.yaml").read_text(encoding="utf-8"))
    values["segments"] = [one for one in values["segments"] if one["id"] in names]
    values["splits"] = {"kind": "lists"} | {
        split: [name for name in names if name.startswith(split)] for split in SEGMENTS
    }
    values |= {"root": str(root), "catalog": str(catalog)}
    chains.build_dataset(BuildDatasetConfig.checked(values, "dataset"), RunContext())


def outcome(method: str, seed: int, root: Path, steps: int) -> Outcome:
    """Train one run, infer the held-out segment, and score the map."""
    config = settings(method, seed, root, steps)
    started = time.perf_counter()
    train(config, RunContext())
    seconds = time.perf_counter() - started
    bundle = root / "runs" / config.run / "bundle"
    infer(InferConfig(segment="demo", bundle=str(bundle), root=str(root), name=config.run), RunContext())
    with open_comparison(str(root), "demo", [config.run], TruthChoice()) as comparison:
        histogram, _ = comparison.total()
    threshold = Bundle.open(bundle_location(str(bundle))).document.contract.threshold
    if threshold is None:
        raise SystemExit(f"{bundle}: no threshold was fitted")
    return Outcome(method, seed, steps, histogram.f_beta(threshold), histogram.auc(), round(seconds, 1))


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a Markdown table: mean ± standard deviation over the seeds, and of the differences to the baseline."""
    found = {(one.method, one.seed): one for one in outcomes}
    rows = [
        "| setting | seeds | F0.5 | AUC | change of F0.5 | change of AUC | time of a run |",
        "|---|---|---|---|---|---|---|",
    ]
    own = [seed for method, seed in found if method == BASELINE]
    for method in METHODS:
        seeds = [seed for seed in own if (method, seed) in found]
        if not seeds:
            continue
        scores = {name: np.array([getattr(found[method, seed], name) for seed in seeds]) for name in ("f05", "auc")}
        before = {name: np.array([getattr(found[BASELINE, seed], name) for seed in seeds]) for name in scores}
        cells = [str(len(seeds)), *(_spread(scores[name]) for name in scores)]
        cells += ["" if method == BASELINE else _spread(scores[name] - before[name], sign="+") for name in scores]
        times = [found[method, seed].seconds / found[BASELINE, seed].seconds for seed in seeds]
        rows.append(f"| {method} | {' | '.join(cells)} | × {np.median(times):.2f} |")
    return rows


def _spread(values: np.ndarray[Any, np.dtype[np.float64]], sign: str = "") -> str:
    deviation = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.3f}{deviation}"


def stored(place: Path, steps: int) -> list[Outcome]:
    """Read the outcomes of so many steps that earlier calls left."""
    if not place.exists():
        return []
    rows: list[Mapping[str, Any]] = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
    return [Outcome(**row) for row in rows if row["steps"] == steps and row["method"] in METHODS]


def main() -> int:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=REPOSITORY / "build" / "ablations")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only-table", action="store_true", help="train nothing; print what is there")
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    found = stored(root / RESULTS, arguments.steps)
    if not arguments.only_table:
        make_data(root)
        for seed in range(arguments.seeds):  # seed by seed: a table of all methods is there early
            for method in METHODS:
                if any((one.method, one.seed) == (method, seed) for one in found):
                    continue
                one = outcome(method, seed, root, arguments.steps)
                found.append(one)
                with (root / RESULTS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(one)) + "\n")
                print(f"{method}, seed {seed}: F0.5 {one.f05:.3f}, AUC {one.auc:.3f}, {one.seconds:.0f} s", flush=True)
    print("\n".join(table(found)))
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main, "python scripts/ablate_training.py"))
