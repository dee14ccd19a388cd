import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from inkbatch.errors import ConfigError
from inkbatch.run.prices import hourly_usd, machines
from inkbatch.run.progress import LineReporter, Pace, pace_text

# A job of slow units through the real frame, with the signal handlers that the command line installs.
JOB = """
import sys, time
from inkbatch.cli.outcome import run_command
from inkbatch.cli.options import run_context
from inkbatch.geometry import Box, Unit
from inkbatch.io.store.location import Location
from inkbatch.run.job import run_job
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunManifest

folder, count, seconds, blocked = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "blocked"
units = [Unit(i, Box(i, 0, i + 1, 1), Box(i, 0, i + 1, 1)) for i in range(count)]
record = RunFolder(Location.parse(folder), RunManifest("infer", {}, {}, count))

def store(unit, computed):
    if blocked:
        time.sleep(60)
    return {"tiles": 500}

def work():
    context.reporter.note("picture so far: somewhere/so-far.png")
    compute = lambda unit, loaded: time.sleep(seconds)
    return UnitWork(lambda unit: 0, compute, store, record.mark, device=lambda: {"device": "cpu"})

def job():
    global context
    context = run_context(None, "auto")
    run_job(record, units, work, context)

sys.exit(run_command(job))
"""


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, *arguments, **environment):
        self.parent, child = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB, *map(str, arguments)],
            stdin=child,
            stdout=child,
            stderr=child,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **environment},
            start_new_session=True,
        )
        os.close(child)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        try:
            while data := os.read(self.parent, 4096):
                self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        except OSError:
            pass  # the terminal is gone

    def wait_for(self, pattern, seconds=60):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.seen):
            assert time.monotonic() < end, self.seen
            time.sleep(0.02)

    def ctrl_c(self):
        self.process.send_signal(signal.SIGINT)

    def end(self, seconds=60):
        code = self.process.wait(seconds)
        self.reader.join(5)
        return code


def test_a_terminal_shows_units_rate_device_share_time_left_money_and_the_picture(tmp_path):
    terminal = Terminal(tmp_path / "run", 6, 0.3, "", INKBATCH_USD_PER_HOUR="3600")
    assert terminal.end() == 0, terminal.seen
    assert "picture so far: somewhere/so-far.png" in terminal.seen
    shown = re.findall(
        r"(\d)/6 units ([\d,]+) tiles/s · device (\d+) % · (\d+\.\d\d) USD \d:\d\d:\d\d (\S+) left", terminal.seen
    )
    assert shown, terminal.seen
    done, rate, share, usd, _left = shown[-1]
    assert int(done) >= 3
    assert 200 < int(rate.replace(",", "")) < 2000
    assert 50 <= int(share) <= 100
    assert 0.5 < float(usd) < 30
    assert any(re.fullmatch(r"\d:\d\d:\d\d", row[4]) for row in shown)


def test_ctrl_c_once_stops_cleanly_and_says_how_to_go_on(tmp_path):
    terminal = Terminal(tmp_path / "run", 200, 0.2, "")
    terminal.wait_for(r"[1-9]\d*/200")
    terminal.ctrl_c()
    assert terminal.end() == 75
    assert "Ctrl-C again stops at once" in terminal.seen
    said = re.search(r"stopped by SIGINT; (\d+) units? stored by this process", terminal.seen)
    assert "run the same command again to go on" in terminal.seen
    assert int(said[1]) == len(list((tmp_path / "run" / "done").iterdir())) > 0
    again = Terminal(tmp_path / "run", 200, 0, "")
    again.wait_for(rf"{said[1]}/200|\d+/200")
    assert again.end() == 0


def test_ctrl_c_twice_stops_at_once_whatever_is_in_flight(tmp_path):
    terminal = Terminal(tmp_path / "run", 5, 0.1, "blocked")
    terminal.wait_for("picture so far")
    time.sleep(1)
    terminal.ctrl_c()
    terminal.wait_for("Ctrl-C again")
    began = time.monotonic()
    terminal.ctrl_c()
    assert terminal.end(30) == 130
    assert time.monotonic() - began < 10  # the write in flight would have taken a minute
    assert "stopped at once" in terminal.seen


def test_without_a_terminal_there_is_one_line_per_unit(tmp_path):
    arguments = [sys.executable, "-c", JOB, str(tmp_path / "run"), "3", "0.01", ""]
    found = subprocess.run(arguments, capture_output=True, text=True, check=True)
    lines = [line for line in found.stderr.splitlines() if "unit" in line]
    assert lines[0] == "infer: 3 units, 0 already done"
    assert len(lines) == 4
    assert re.fullmatch(r"infer: unit y00002-x00000 stored \(3/3, [\d.]+ s, [\d,]+ tiles/s · device \d+ %\)", lines[-1])
    assert "\x1b" not in found.stderr


def test_json_lines_carry_the_pace(capsys):
    reporter = LineReporter(as_json=True, usd_per_hour=2.0)
    reporter.start("infer", 2, 0)
    reporter.unit("y0-x0", {"tiles": 40, "bytes_written": 7, "device_share": 0.5})
    row = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (row["unit"], row["done"], row["tiles"], row["bytes_written"], row["device_share"]) == (
        "y0-x0",
        1,
        40,
        7,
        0.5,
    )
    assert row["tiles_per_s"] > 0
    assert row["usd"] >= 0


def test_the_pace_is_that_of_this_process_since_the_start():
    now = [100.0]
    pace = Pace(usd_per_hour=3.6, clock=lambda: now[0])
    now[0] = 150.0
    pace.restart()
    now[0] = 160.0
    assert pace.add({"tiles": 300}) == {"seconds": 10.0, "tiles_per_s": 30.0, "usd": 0.01}
    now[0] = 170.0
    row = pace.add({"tiles": 100, "device_share": 0.874})
    assert row == {"seconds": 20.0, "tiles_per_s": 20.0, "device_share": 0.874, "usd": 0.02}
    assert pace_text(row) == "20 tiles/s · device 87 % · 0.02 USD"
    assert pace_text({"seconds": 1.0}) == ""


def test_building_a_network_slows_no_tile_but_costs_money():
    now = [0.0]
    pace = Pace(usd_per_hour=3.6, clock=lambda: now[0])
    now[0] = 10.0
    assert pace.add({"tiles": 300, "loop_s": 2.0}) == {"seconds": 10.0, "tiles_per_s": 150.0, "usd": 0.01}


def test_money_is_stated_and_never_guessed(monkeypatch):
    for name in ("INKBATCH_MACHINE", "INKBATCH_USD_PER_HOUR"):
        monkeypatch.delenv(name, raising=False)
    assert hourly_usd() is None
    name, machine = next(iter(machines().items()))
    monkeypatch.setenv("INKBATCH_MACHINE", name)
    assert hourly_usd() == machine.on_demand
    monkeypatch.setenv("INKBATCH_USD_PER_HOUR", "0.5")
    assert hourly_usd() == 0.5
    for wrong in ("cheap", "-1", "nan"):
        monkeypatch.setenv("INKBATCH_USD_PER_HOUR", wrong)
        with pytest.raises(ConfigError, match="expected USD per hour"):
            hourly_usd()
    monkeypatch.delenv("INKBATCH_USD_PER_HOUR")
    monkeypatch.setenv("INKBATCH_MACHINE", "steam-engine")
    with pytest.raises(ConfigError, match="not in the price table"):
        hourly_usd()


def test_without_tiles_the_pace_is_that_of_what_is_written():
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    now[0] = 2.0
    assert pace.add({"bytes_written": 3_000_000}) == {"seconds": 2.0, "mb_per_s": 1.5}
    assert pace_text({"mb_per_s": 1.5, "device_share": 0.1}) == "1.5 MB/s written · device 10 %"


def test_a_part_of_a_unit_counts_and_writes_no_line(capsys):
    reporter = LineReporter(as_json=True)
    reporter.start("train", 2, 0)
    reporter.advance(0.5, {"tiles": 40})
    reporter.unit("epoch 1 of 2", {})
    rows = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [row["event"] for row in rows] == ["start", "unit"]
    assert rows[-1]["tiles_per_s"] > 0


def test_a_unit_that_was_told_in_parts_counts_its_tiles_once():
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    now[0] = 10.0
    assert pace.advance({"tiles": 30})["tiles_per_s"] == 3
    assert pace.advance({"tiles": 70})["tiles_per_s"] == 10
    assert pace.add({"tiles": 100})["tiles_per_s"] == 10


def test_a_log_says_what_is_said_of_a_unit_and_counts_one_unit(capsys):
    reporter = LineReporter(as_json=False)
    reporter.start("train", 1, 0)
    reporter.unit("epoch 1 of 1", {"said": "loss 0.5, F0.5 0.700"})
    first, second = capsys.readouterr().err.splitlines()
    assert first == "train: 1 unit, 0 already done"
    assert second.startswith("train: epoch 1 of 1: loss 0.5, F0.5 0.700 (1/1")
