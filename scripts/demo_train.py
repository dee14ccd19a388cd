"""Train the demo bundle again, with the commands that a user has, and compare it with the shipped one.

    python scripts/demo_train.py --root root        (make demo-train)

Phantom segments are planted into the papyrus of ``scripts/data``, a dataset is built of them, a network is trained on
it, and the demo segment, whose pixels and letters it never saw, is inferred with the new and with the shipped bundle.
The settings are those of ``jobs/demo``. Stopped anywhere, the same command goes on.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from inkbatch.cli.outcome import run_script
from inkbatch.data.maps.comparison import open_comparison
from inkbatch.data.maps.scoring import ScoreHistogram
from inkbatch.data.maps.truth import TruthChoice
from inkbatch.text import seconds_text

REPOSITORY = Path(__file__).resolve().parent.parent
JOBS = REPOSITORY / "jobs" / "demo"
SHIPPED = REPOSITORY / "inkbatch" / "demo" / "bundle"
LARGEST_BUNDLE = 6_000_000
TARGET_F05 = 0.85
AT_A_TIME = 2


@dataclass
class Jobs:
    """Runs jobs one after the other and counts what they take.

    Attributes:
        root: ROOT.
        cpu_s: CPU seconds so far.
        started: When the first one began.
    """

    root: Path
    cpu_s: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def run(self, *arguments: str | Path) -> None:
        """Run one job of the command line.

        Raises:
            SystemExit: It failed; with its exit code.
        """
        self.run_together([arguments])

    def run_together(self, jobs: Sequence[Sequence[str | Path]]) -> None:
        """Run jobs that do not wait for each other, two at a time.

        Raises:
            SystemExit: One failed; with its exit code.
        """

        def run_one(arguments: Sequence[str | Path]) -> int:
            words = [str(argument) for argument in arguments]
            print(f"$ inkbatch {shlex.join(words)}", flush=True)
            return subprocess.run([sys.executable, "-m", "inkbatch", *words], cwd=REPOSITORY, check=False).returncode

        before = _children_cpu_s()
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            codes = list(pool.map(run_one, jobs))
        self.cpu_s += _children_cpu_s() - before
        if any(codes):
            raise SystemExit(next(code for code in codes if code))

    @property
    def wall_s(self) -> float:
        """Wall-clock seconds so far."""
        return time.perf_counter() - self.started


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def train(jobs: Jobs, sets: list[str]) -> Path:
    """Train from papyrus and letters to a bundle; return its folder."""
    phantoms = jobs.root / "phantoms"
    for part in ("train", "validation"):  # one after the other: both write the catalog
        jobs.run("phantoms", "--config", JOBS / f"phantoms-{part}.yaml", "--set", f"output={phantoms}")
    where = ["--root", jobs.root, "--catalog", phantoms / "segments.yaml"]
    planted = yaml.safe_load((phantoms / "segments.yaml").read_text(encoding="utf-8"))["segments"]
    jobs.run_together([["prepare", segment, *where] for segment in planted])
    jobs.run("build-dataset", "--config", JOBS / "dataset.yaml", *where)
    options = [word for item in sets for word in ("--set", item)]
    jobs.run("train", "--config", JOBS / "train.yaml", "--root", jobs.root, *options)
    return jobs.root / "runs" / "demo" / "bundle"


def held_out(jobs: Jobs, name: str, bundle: Path) -> ScoreHistogram:
    """Infer the demo segment and compare it with the truth."""
    jobs.run("infer", "demo", "--root", jobs.root, "--bundle", bundle, "--name", name)
    with open_comparison(str(jobs.root), "demo", [name], TruthChoice()) as comparison:
        return comparison.total()[0]


def threshold_of(bundle: Path) -> float:
    """Read the threshold that a bundle states."""
    return float(yaml.safe_load((bundle / "bundle.json").read_text(encoding="utf-8"))["contract"]["threshold"])


def ship(bundle: Path) -> None:
    """Put the new bundle in the place of the shipped one."""
    size = sum(file.stat().st_size for file in bundle.iterdir())
    if size > LARGEST_BUNDLE:
        raise SystemExit(f"{bundle}: {size:,} bytes, at most {LARGEST_BUNDLE:,} are shipped; train a smaller network")
    shutil.rmtree(SHIPPED)
    shutil.copytree(bundle, SHIPPED)


def main() -> int:
    """Train, infer, compare; ends with 1 where the new bundle misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=REPOSITORY / "root")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="a setting of train; may be repeated")
    parser.add_argument("--ship", action="store_true", help="replace the shipped bundle, unless it is better")
    arguments = parser.parse_args()
    jobs = Jobs(arguments.root.resolve())
    bundle = train(jobs, arguments.sets)
    jobs.run("prepare", "demo", "--root", jobs.root)
    new = held_out(jobs, "demo-new", bundle)
    print(f"from nothing to the held-out map: {seconds_text(jobs.wall_s)}, {seconds_text(jobs.cpu_s)} of CPU")
    shipped = held_out(jobs, "demo-shipped", SHIPPED)
    print("\nheld-out demo segment, planted ink     F0.5 at the bundle's threshold     AUC")
    found = {}
    for name, histogram, where in (("trained now", new, bundle), ("shipped", shipped, SHIPPED)):
        found[name] = histogram.f_beta(threshold_of(where))
        print(f"{name:<38} {found[name]:<34.3f} {histogram.auc():.3f}")
    print(f"report: {bundle.parent / 'report.html'}")
    if found["trained now"] < TARGET_F05:
        print(f"F0.5 of at least {TARGET_F05} was expected", file=sys.stderr)
        return 1
    if arguments.ship:
        if found["trained now"] < found["shipped"]:
            raise SystemExit("the shipped bundle is better and stays")
        ship(bundle)
        print(f"shipped: {SHIPPED}")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main, "python scripts/demo_train.py"))
