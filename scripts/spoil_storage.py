"""Run every job on an S3 server behind a faulty proxy, and compare; exit 1 if something differs, hangs or breaks.

python scripts/spoil_storage.py --trials 300
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from inkbatch.testing.campaigns import Place
from inkbatch.testing.spoiling import scenes_with_pull, trials


def main() -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="end early after these")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun, wrong, codes, faults, refusals = time.monotonic(), 0, Counter[str](), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="inkbatch-storage-") as name, Place(Path(name), "s3") as place:
        scenes = scenes_with_pull(place, Path(name))
        print(f"{len(scenes)} jobs without faults: {time.monotonic() - begun:.0f} s", flush=True)
        for number, trial in enumerate(trials(place, Path(name), scenes, options.seed), 1):
            codes[str(trial.code)] += 1
            faults.update(trial.counts)
            if trial.code:
                refusals[f"{trial.job} {trial.code}: {trial.words[:160]}"] += 1
            for fault in trial.faults:
                print(f"WRONG, trial {number} of seed {options.seed}: {trial.job} at {trial.rate}: {fault}", flush=True)
            wrong += bool(trial.faults)
            if number >= options.trials or time.monotonic() - begun > options.minutes * 60:
                break
    for words, count in refusals.most_common(20):
        print(f"  {count} x {words}")
    print(
        f"seed {options.seed}: {number} trials, {faults.total()} requests spoilt, exit codes {dict(codes)}, "
        f"{wrong} wrong, {time.monotonic() - begun:.0f} s\n  {dict(sorted(faults.items()))}",
        flush=True,
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # some compiled modules complain of a common end
