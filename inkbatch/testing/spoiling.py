"""Jobs on an S3 server behind a faulty proxy: the campaign behind ``make test-storage``.

A job ends with the bytes of a run that nothing disturbed, or says by name what failed; then the same command, on a
connection that is sound again, ends with these bytes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from inkbatch.errors import EXIT_DATA, EXIT_DONE, EXIT_TRY_AGAIN
from inkbatch.io.store import retrying
from inkbatch.io.store.location import Location
from inkbatch.launch.pull import pull
from inkbatch.run.job import JobReport, RunContext
from inkbatch.testing.campaigns import Objects, Place, Scene, forked, objects_in, scenes_of, unequal
from inkbatch.testing.faulty_proxy import by_chance, proxy_process
from inkbatch.testing.jobs import Step

RATES = (0.03, 0.1, 0.25)  # of the requests of one trial
SHORTER = 0.1  # waits between attempts, so that a campaign takes minutes
PULLED = "pulled"  # folder of what `pull` brings, and its prefix among the objects that are compared


@dataclass(frozen=True)
class Trial:
    """Account of a job on a bad connection.

    Attributes:
        job: Its name.
        rate: Share of the requests that were spoilt.
        code: Exit code; 0 means equal bytes where there are no faults.
        counts: What was spoilt, as ``PUT lost``.
        faults: What is wrong, for people; empty where nothing is.
        words: The last line of a job that refused.
        growth: Most memory of the job's process, see `Ended`.
    """

    job: str
    rate: float
    code: int | None
    counts: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    words: str = ""
    growth: int = 0


def scenes_with_pull(place: Place, folder: Path) -> list[Scene]:
    """Run every job without faults, and pull the predictions at last."""
    scenes = scenes_of(place, folder)
    target = folder / PULLED

    def run(context: RunContext) -> JobReport:
        pull(place.root, "page", target)
        return JobReport("pull", Location.parse(target), 1, 1, 0, 0, 0.0, {})

    before = folder / "before-pull"
    place.keep(before)
    ended = forked(lambda: _run(run), folder, place.environment)
    if ended.code != EXIT_DONE:
        raise RuntimeError(f"pull: ended with {ended.code} without any fault:\n{ended.words}")
    after = _lying(place, folder)
    return [*scenes, Scene(len(scenes), Step("pull", run), before, after, ended.seconds, {})]


def trials(place: Place, folder: Path, scenes: Sequence[Scene], seed: int) -> Iterator[Trial]:
    """Run the jobs in turn through a proxy, without end; equal seeds choose equal faults for equal requests."""
    rng = np.random.default_rng(seed)
    while True:
        for scene in scenes:
            yield _trial(place, folder, scene, float(rng.choice(RATES)), int(rng.integers(2**31)))


def _trial(place: Place, folder: Path, scene: Scene, rate: float, seed: int) -> Trial:
    place.put_back(scene.before)
    shutil.rmtree(folder / PULLED, ignore_errors=True)
    told = folder / "faults.txt"
    with proxy_process(place.endpoint, by_chance(seed, rate), told) as proxy:
        environment = {**place.environment, "AWS_ENDPOINT_URL": proxy.endpoint}
        spoilt = forked(
            lambda: _run(scene.step.run, SHORTER),
            folder,
            environment,
            limit_s=scene.limit_s,
            excused_s=lambda: proxy.held_s,
        )
    counts = Counter(
        {name: int(count) for count, _, name in (row.partition(" ") for row in told.read_text().split("\n")[:-1])}
    )
    faults = spoilt.faults("on the bad connection", (EXIT_DONE, EXIT_DATA, EXIT_TRY_AGAIN))
    if spoilt.code == EXIT_DONE:
        faults += _differing("after exit code 0", _lying(place, folder), scene.after)
    else:
        again = forked(lambda: _run(scene.step.run), folder, place.environment, limit_s=scene.limit_s)
        faults += again.faults("on a sound connection again", (EXIT_DONE,))
        faults += _differing("after the second run", _lying(place, folder), scene.after)
    words = spoilt.words.strip().rpartition("\n")[2] if spoilt.code else ""
    return Trial(scene.step.job, rate, spoilt.code, counts, tuple(faults), words, spoilt.growth)


def _run(run: Callable[[RunContext], Any], shorter: float = 1.0) -> None:
    retrying.RETRY_DELAYS_S = tuple(wait * shorter for wait in retrying.RETRY_DELAYS_S)  # type: ignore[assignment]
    run(RunContext())


def _lying(place: Place, folder: Path) -> Objects:
    """Read what lies in ROOT, and what `pull` brought; names that begin with a dot are its own notes."""
    brought = objects_in(folder / PULLED)
    own = {f"{PULLED}/{name}": data for name, data in brought.items() if not name.rpartition("/")[2].startswith(".")}
    return {**objects_in(place.files), **own}


def _differing(when: str, found: Objects, expected: Objects) -> list[str]:
    names = unequal(found, expected)
    return [f"{when} {len(names)} objects differ: {', '.join(names[:5])}"] if names else []
