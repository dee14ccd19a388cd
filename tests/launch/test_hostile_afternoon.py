"""Spot life: eight shards killed at random moments, two of them started twice at once; the bytes are the same."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from inkbatch.launch.events import EventLog, read_events
from inkbatch.launch.progress import progress_under
from inkbatch.testing.faults import stored_bytes
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers

SHARDS = 8
KILLS_PER_SHARD = 2
TWINS = (2, 5)  # started twice at once, as a scheduler does that lost sight of a node
UNBORN = -1  # SIGTERM before Python ran our first line
STOP_S = 20.0  # from SIGTERM to the end
COMMANDS = {
    "prepare": ["prepare", "tiny", "--set", "depth_order=forward", "--set", "voxel_size_um=8", "--set", "shard_px=64"],
    "infer": ["infer", "tiny", "--name", "map", "--set", "unit_px=64"],
}


@dataclass
class Afternoon:
    """Plays the machines of one job: each shard is started until it ends with 0, and killed while kills are left.

    Attributes:
        command: Arguments of inkbatch.
        events: What happened.
        logs: Folder of the shards' logs.
        seed: Of the moments and the kinds of kills.
    """

    command: list[str]
    events: EventLog
    logs: Path
    seed: int
    slowest_stop_s: float = 0.0
    codes: list[int] = field(default_factory=list)
    slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(3))

    def play(self) -> None:
        workers = [*range(SHARDS), *TWINS]
        threads = [threading.Thread(target=self._shard, args=(n, shard)) for n, shard in enumerate(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _shard(self, number: int, shard: int) -> None:
        chance, kills, attempt = random.Random(self.seed * 100 + number), KILLS_PER_SHARD, 0
        code = None
        while code != 0:
            attempt += 1
            with self.slots:
                code, was_hit = self._attempt(number, shard, attempt, chance, kills > 0)
            kills -= was_hit
            assert code in (0, 75, 137, UNBORN), (self.logs / f"{number}.log").read_text()
            assert attempt < 20

    def _attempt(self, number: int, shard: int, attempt: int, chance: random.Random, disturb: bool) -> tuple[int, bool]:
        identity = {"INKBATCH_ARRAY_INDEX": shard, "INKBATCH_ARRAY_COUNT": SHARDS, "INKBATCH_ATTEMPT": attempt}
        environment = {**os.environ, **{key: str(value) for key, value in identity.items()}, "OMP_NUM_THREADS": "1"}
        with open(self.logs / f"{number}.log", "ab") as log:
            before = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "inkbatch", *self.command, "--log", "json"],
                env=environment,
                stdout=log,
                stderr=log,
            )
            self.events.add("start", job=self.command[0], shard=shard, worker=number, attempt=attempt)
            was_hit = disturb and self._hit(process, shard, number, chance)
            code = process.wait()
        code = code if code >= 0 else 128 - code
        if code == 143 and (self.logs / f"{number}.log").stat().st_size == before:
            code = UNBORN
        self.codes.append(code)
        self.events.add("end", job=self.command[0], shard=shard, worker=number, attempt=attempt, exit=code)
        return code, was_hit

    def _hit(self, process: subprocess.Popen[bytes], shard: int, number: int, chance: random.Random) -> bool:
        time.sleep(chance.uniform(0.0, 4.0))
        if process.poll() is not None:
            return True  # it was faster: the moment has passed
        name = chance.choice(["SIGTERM", "SIGKILL"])
        process.send_signal(signal.Signals[name])
        self.events.add("hit", job=self.command[0], shard=shard, worker=number, signal=name)
        started = time.monotonic()
        process.wait()
        if name == "SIGTERM":
            self.slowest_stop_s = max(self.slowest_stop_s, time.monotonic() - started)
        return True


@pytest.mark.slow
def test_a_hostile_afternoon_ends_with_the_quiet_runs_bytes(tmp_path):
    layers = write_layers(tmp_path / "layers", random_papyrus((5, 260, 330)))
    identity_bundle(tmp_path / "bundle")
    more = {"prepare": ["--source", str(layers)], "infer": ["--bundle", str(tmp_path / "bundle")]}
    for job, words in COMMANDS.items():
        quiet = [*words, *more[job], "--root", str(tmp_path / "quiet")]
        subprocess.run([sys.executable, "-m", "inkbatch", *quiet], check=True, capture_output=True)

    events = EventLog(tmp_path / "events.jsonl", speak=False)
    for seed, (job, words) in enumerate(COMMANDS.items()):
        (tmp_path / job).mkdir()
        afternoon = Afternoon([*words, *more[job], "--root", str(tmp_path / "hostile")], events, tmp_path / job, seed)
        afternoon.play()
        assert afternoon.slowest_stop_s < STOP_S
        assert afternoon.codes.count(0) == SHARDS + len(TWINS)

    assert all(row.complete for row in progress_under(str(tmp_path / "hostile"), "tiny"))
    for folder in ("segments", "predictions"):
        assert stored_bytes(tmp_path / "hostile" / folder) == stored_bytes(tmp_path / "quiet" / folder)
    assert not list((tmp_path / "hostile").rglob("*.json.*.partial")), "half a marker was left"
    _the_log_says_what_happened(read_events(events.path), tmp_path)


def _the_log_says_what_happened(rows: list[dict], logs: Path) -> None:
    hits = [row for row in rows if row["event"] == "hit"]
    assert {row["signal"] for row in hits} == {"SIGTERM", "SIGKILL"}
    assert len(hits) >= SHARDS
    twice = [row for row in rows if row["event"] == "start" and row["attempt"] == 1 and row["shard"] in TWINS]
    assert len(twice) == 2 * len(TWINS) * len(COMMANDS)
    for row in (row for row in rows if row["event"] == "end"):
        said = (logs / row["job"] / f"{row['worker']}.log").read_text()
        if row["exit"] == 75:
            assert re.search(r"(stopped by|SIGTERM before)", said), said
        if row["exit"] == 0:
            assert re.search(rf"{row['job']}: (complete|\d+ of \d+ units? still missing) · \d+ units? stored", said)
    assert sorted(path.name for path in (logs / "hostile").iterdir()) == [
        "predictions",
        "segments",
    ]  # nothing was written elsewhere
