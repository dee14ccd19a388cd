"""Kill every job at every kind of write and at any time, start it again, and compare; exit 1 if something differs.

    python scripts/kill_jobs.py --kills 1000

Both stores are used, a local folder and rclone's S3 server. What a spoilt ROOT looked like is kept in ``--keep``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from inkbatch.cli.outcome import run_script
from inkbatch.testing.campaigns import Place, StoreKind, stop_at_sigterm
from inkbatch.testing.jobs import require_steps
from inkbatch.testing.killing import Trial, named, prepared_scenes, trials
from inkbatch.text import bytes_text, count_text, seconds_text


def main() -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="over both stores")
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="end early after these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", choices=("local", "s3"), action="append", help="one store alone")
    parser.add_argument("--job", action="append", help="kill this job alone; repeatable")
    parser.add_argument("--keep", type=Path, default=Path("kill-findings"))
    parser.add_argument(
        "--hit", type=Path, help="folder of lists of the kinds that campaigns hit; they come last, then"
    )
    options = parser.parse_args()
    require_steps(options.job)
    stop_at_sigterm()
    stores: list[StoreKind] = options.store or ["local", "s3"]
    failed = 0
    for store in stores:
        with tempfile.TemporaryDirectory(prefix="inkbatch-kills-") as folder:
            seconds = options.minutes * 60 / len(stores)
            failed += killed(store, Path(folder), options.kills // len(stores), seconds, options)
    return 1 if failed else 0


def killed(store: StoreKind, folder: Path, kills: int, seconds: float, options: argparse.Namespace) -> int:
    """Kill jobs on one store; prints what was done and returns how many trials went wrong."""
    begun, jobs, kinds = time.monotonic(), Counter[str](), Counter[str]()
    wrong = count = growth = 0
    hit = options.hit / f"{store}.txt" if options.hit else None
    before = set(hit.read_text().splitlines()) if hit and hit.exists() else set[str]()
    with Place(folder, store) as place:
        scenes = [one for one in prepared_scenes(place, folder) if not options.job or one.step.job in options.job]
        taken = seconds_text(time.monotonic() - begun)
        print(f"{store}: {count_text(len(scenes), 'job')} to be killed; all without faults: {taken}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            for number, trial in enumerate(trials(place, folder, scenes, options.seed, before)):
                count += 1
                growth = max(growth, trial.growth)
                jobs[trial.scene.step.job] += len(trial.blows)
                kinds.update(named(trial.scene, blow.kind) for blow in trial.blows if blow.kind)
                if trial.faults:
                    wrong += 1
                    told(trial, f"{store}-{options.seed}-{number}", place, options.keep)
                if jobs.total() >= kills or time.monotonic() - begun > seconds:
                    break
    possible = {named(scene, kind) for scene in scenes for kind in scene.facts}
    reached = (kinds.keys() | before) & possible
    if hit:
        hit.parent.mkdir(parents=True, exist_ok=True)
        hit.write_text("".join(f"{kind}\n" for kind in sorted(reached)))
    print(
        f"{store}, seed {options.seed}: {jobs.total()} kills ({kinds.total()} at writes, {len(kinds)} of "
        f"{len(possible)} kinds, {len(reached)} with earlier campaigns) in {count} trials, {wrong} wrong, at most "
        f"{bytes_text(growth)} of memory for a job, {seconds_text(time.monotonic() - begun)}\n  {dict(jobs)}",
        flush=True,
    )
    return wrong


def told(trial: Trial, name: str, place: Place, keep: Path) -> None:
    """Print what went wrong, and keep ROOT."""
    print(f"WRONG {name}: {trial.scene.step.job}, killed at {list(trial.blows)}")
    for fault in trial.faults:
        print(f"  {fault}", flush=True)
    shutil.copytree(place.files, keep / name, dirs_exist_ok=True)


if __name__ == "__main__":
    code = run_script(main, "python scripts/kill_jobs.py")
    sys.stdout.flush()
    os._exit(code)  # some compiled modules complain of a common end
