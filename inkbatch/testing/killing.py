"""Killing jobs at every kind of write and at any time: the campaign behind ``make test-kill``.

A process counts its writes by kind, and kills itself at one of them; or it is killed after some seconds. It is started
again, and killed again, and left to end at last. Then every object must be the one of a run that nobody disturbed.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inkbatch.errors import EXIT_DONE
from inkbatch.io.store.local_files import LEFTOVER_AGE_S
from inkbatch.run.job import RunContext
from inkbatch.testing.campaigns import Action, Ended, Place, Scene, forked, leftovers_in, objects_in, scenes_of, unequal

MOST_BLOWS = 12  # in one trial; a job that goes on after one costs less than one from the start
HEAVY = 3
AT_A_WRITE = 0.75  # share of the blows

_NUMBERS = re.compile(r"[0-9a-f]{12,}|\d+")
_S3_WRITES = frozenset(
    {"put_object", "upload_part", "complete_multipart_upload", "delete_object", "delete_objects", "copy_object"}
)


@dataclass(frozen=True)
class Blow:
    """A moment at which a process is killed.

    Attributes:
        kind: Kind of write, as `Writes` counts them; empty for a moment in time.
        number: The write of that kind, from 1.
        seconds: Without a kind: seconds after the start.
    """

    kind: str = ""
    number: int = 0
    seconds: float = 0.0


class Writes:
    """Counts what this process writes below a ROOT, by kind; kills the process at a `Blow`.

    A kind is an operation and a path without its numbers: ``link segments/page/prepare/done/#-y#-x#.json``. On a disk
    the moment is right before the operation, on S3 right before it is sent or right after it was answered.

    Args:
        root: A local folder, or ``s3://…``.
        blow: When to kill; None only counts.
    """

    def __init__(self, root: str, blow: Blow | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._root, self._blow = root.removeprefix("s3://").rstrip("/") + "/", blow
        self._lock = threading.Lock()
        if root.startswith("s3://"):
            _watch_s3(self.note)
        else:
            sys.addaudithook(self._heard)

    def note(self, operation: str, path: str) -> None:
        """Count one write; paths elsewhere do not count."""
        if not f"{path}/".startswith(self._root):
            return
        kind = f"{operation} {_NUMBERS.sub('#', path.removeprefix(self._root))}"
        with self._lock:
            self.counts[kind] += 1
            if self._blow and kind == self._blow.kind and self.counts[kind] == self._blow.number:
                os.kill(os.getpid(), signal.SIGKILL)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            self.note("open", arguments[0])
        elif event in ("os.link", "os.rename"):
            self.note(event.removeprefix("os."), str(arguments[1]))
        elif event in ("os.remove", "os.rmdir"):
            self.note(event.removeprefix("os."), str(arguments[0]))


def _watch_s3(note: Callable[[str, str], None]) -> None:
    from s3fs import S3FileSystem

    call = S3FileSystem._call_s3

    async def noted(self: Any, method: str, *documents: Any, **words: Any) -> Any:
        if method not in _S3_WRITES:
            return await call(self, method, *documents, **words)
        path = f"{words.get('Bucket', '')}/{words.get('Key', '') or _first_key(words)}"
        note(f"before {method}", path)
        answer = await call(self, method, *documents, **words)
        note(f"after {method}", path)
        return answer

    S3FileSystem._call_s3 = noted


def _first_key(words: dict[str, Any]) -> str:
    listed = words.get("Delete", {}).get("Objects", [])
    return str(listed[0]["Key"]) if listed else ""


@dataclass(frozen=True)
class Trial:
    """Account of a job that was killed and started again.

    Attributes:
        scene: The job.
        blows: Those that killed it.
        faults: What is wrong, for people; empty where nothing is.
        growth: Most memory of one of its processes, see `Ended`.
    """

    scene: Scene
    blows: tuple[Blow, ...]
    faults: tuple[str, ...]
    growth: int = 0


def prepared_scenes(place: Place, folder: Path) -> list[Scene]:
    """Run every job without faults, and count the writes of each."""

    def counted(run: Action) -> dict[str, int]:
        writes = Writes(place.root)
        run()
        return dict(writes.counts)

    return scenes_of(place, folder, counted)


def trials(place: Place, folder: Path, scenes: Sequence[Scene], seed: int, hit: Container[str] = ()) -> Iterator[Trial]:
    """Kill jobs, without end: all jobs and all kinds of write in turn, the rest by chance.

    Jobs that take more than `HEAVY` times what others do come in one turn of as many.

    Args:
        place: Their ROOT.
        folder: For what processes say.
        scenes: From `prepared_scenes`.
        seed: Equal seeds, equal blows.
        hit: Kinds that come last in the first turn, see `named`.
    """
    rng = np.random.default_rng(seed)
    order: dict[int, list[str]] = {}
    for scene in scenes:
        kinds = rng.permutation(sorted(scene.facts)).tolist()
        order[scene.number] = sorted(kinds, key=lambda kind, own=scene: named(own, kind) in hit)  # type: ignore[misc]
    often = HEAVY * sorted(scene.seconds for scene in scenes)[len(scenes) // 2]
    for turn in itertools.count():
        for scene in scenes:
            if scene.seconds > often and turn % HEAVY:
                continue
            yield _trial(place, folder, scene, _blows(scene, order[scene.number], rng))


def named(scene: Scene, kind: str) -> str:
    """Name a kind of write among those of all jobs."""
    return f"{scene.number} {kind}"


def _blows(scene: Scene, kinds: list[str], rng: np.random.Generator) -> list[Blow]:
    """Choose the blows of a trial, in the order of a run's writes, so that later ones are reached, too."""
    first_written = {kind: place for place, kind in enumerate(scene.facts)}
    count = int(rng.integers(2, MOST_BLOWS + 1))
    at_writes = int(rng.binomial(count, AT_A_WRITE))
    for _ in range(at_writes):
        kinds.append(kinds.pop(0))
    chosen = sorted(kinds[-at_writes:] if at_writes else [], key=first_written.__getitem__)
    blows = [Blow(kind, _which(scene.facts[kind], number, rng)) for number, kind in enumerate(chosen)]
    for _ in range(count - at_writes):
        blows.insert(int(rng.integers(len(blows) + 1)), Blow(seconds=float(rng.uniform(0.0, scene.seconds))))
    return blows


def _which(writes: int, blows_before: int, rng: np.random.Generator) -> int:
    """Choose one of the writes of a kind, often the first: one that goes on has fewer of them to do."""
    if rng.random() < 0.5:
        return 1
    return int(rng.integers(1, -(-writes // (1 + blows_before)) + 1))


def _trial(place: Place, folder: Path, scene: Scene, blows: Sequence[Blow]) -> Trial:
    place.put_back(scene.before)
    landed: list[Blow] = []
    faults: list[str] = []
    growth = 0
    for blow in blows:
        ended = _process(place, folder, scene, blow)
        growth = max(growth, ended.growth)
        faults += ended.faults(f"after {len(landed)} kills", (None, EXIT_DONE))
        if ended.code is None and not ended.hung:
            landed.append(blow)
        if ended.code == EXIT_DONE:
            break
    last = _process(place, folder, scene, None)
    faults += last.faults("left to itself", (EXIT_DONE,))
    differing = unequal(objects_in(place.files), scene.after)
    if differing:
        faults.append(f"{len(differing)} objects differ: {', '.join(differing[:5])}")
    if leftovers_in(place.files, age_s=2 * LEFTOVER_AGE_S):
        _process(place, folder, scene, None)
        stay = leftovers_in(place.files)
        faults += [f"leftovers stay although they are old: {stay[:5]}"] if stay else []
    return Trial(scene, tuple(landed), tuple(faults), max(growth, last.growth))


def _process(place: Place, folder: Path, scene: Scene, blow: Blow | None) -> Ended:
    def job() -> None:
        if blow and blow.kind:
            Writes(place.root, blow)
        scene.step.run(RunContext())

    after = blow.seconds if blow and not blow.kind else None
    return forked(job, folder, place.environment, kill_after_s=after, limit_s=scene.limit_s)
