"""Run every job on an S3 server behind a faulty proxy, and compare; exit 1 if something differs, hangs or breaks.

python scripts/spoil_storage.py --trials 300
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from inkbatch.cli.outcome import run_script
from inkbatch.testing.campaigns import Place, stop_at_sigterm
from inkbatch.testing.jobs import require_steps
from inkbatch.testing.spoiling import Trial, scenes_with_pull, trials
from inkbatch.text import bytes_text, count_text, seconds_text


@dataclass
class Tally:
    """Counts of a campaign.

    Attributes:
        seed: Of the campaign.
        trials: Jobs that ran on a bad connection.
        wrong: Those that broke a promise.
        codes: Their exit codes.
        spoilt: Requests that were spoilt, as ``PUT lost``.
        refusals: Last words of jobs that did not end with 0.
        growth: Most memory that a job took, in bytes.
    """

    seed: int
    trials: int = 0
    wrong: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    spoilt: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    growth: int = 0

    def add(self, trial: Trial) -> None:
        """Count a trial; what is wrong is printed at once."""
        self.trials += 1
        self.wrong += bool(trial.faults)
        self.codes[str(trial.code)] += 1
        self.spoilt.update(trial.counts)
        self.growth = max(self.growth, trial.growth)
        if trial.code:
            self.refusals[f"{trial.job} {trial.code}: {trial.words[:160]}"] += 1
        for fault in trial.faults:
            print(f"WRONG, trial {self.trials} of seed {self.seed}: {trial.job} at {trial.rate}: {fault}", flush=True)

    def told(self, seconds: float) -> None:
        """Print the sums."""
        for words, count in self.refusals.most_common(20):
            print(f"  {count} x {words}")
        print(
            f"seed {self.seed}: {self.trials} trials, {self.spoilt.total()} requests spoilt, exit codes "
            f"{dict(self.codes)}, {self.wrong} wrong, at most {bytes_text(self.growth)} of memory for a job, "
            f"{seconds_text(seconds)}\n  {dict(sorted(self.spoilt.items()))}",
            flush=True,
        )


def main() -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="end early after these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--job", action="append", help="this job alone; repeatable")
    parser.add_argument("--at-once", type=int, default=1, help="campaigns side by side, for most of one is waiting")
    options = parser.parse_args()
    require_steps(options.job, ("pull",))
    stop_at_sigterm()
    if options.at_once > 1:
        return side_by_side(options)
    begun, tally = time.monotonic(), Tally(options.seed)
    with tempfile.TemporaryDirectory(prefix="inkbatch-storage-") as name, Place(Path(name), "s3") as place:
        scenes = [one for one in scenes_with_pull(place, Path(name)) if not options.job or one.step.job in options.job]
        print(
            f"{count_text(len(scenes), 'job')} to be run; all without faults: {seconds_text(time.monotonic() - begun)}",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            for trial in trials(place, Path(name), scenes, options.seed):
                tally.add(trial)
                if tally.trials >= options.trials or time.monotonic() - begun > options.minutes * 60:
                    break
        tally.told(time.monotonic() - begun)
    return 1 if tally.wrong else 0


def side_by_side(options: argparse.Namespace) -> int:
    """Run campaigns of seeds that follow each other, each in a process of its own; returns the highest exit code."""
    share = ["--trials", str(-(-options.trials // options.at_once)), "--minutes", str(options.minutes)]
    share += [word for job in options.job or () for word in ("--job", job)]
    seeds = range(options.seed, options.seed + options.at_once)
    running = [subprocess.Popen([sys.executable, __file__, *share, "--seed", str(seed)]) for seed in seeds]
    try:
        return max(one.wait() for one in running)
    except KeyboardInterrupt:
        for one in running:
            one.terminate()
        return max(one.wait() for one in running)


if __name__ == "__main__":
    code = run_script(main, "python scripts/spoil_storage.py")
    sys.stdout.flush()
    os._exit(code)  # some compiled modules complain of a common end
