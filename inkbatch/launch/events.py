"""Events of a launch on this machine: one JSON line each on disk and, in words, on standard error."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any


class EventLog:
    """Appends events; several threads share it."""

    def __init__(self, path: Path, speak: bool = True) -> None:
        self.path, self.speak = path, speak
        self._lock = threading.Lock()

    def add(self, event: str, **facts: Any) -> None:
        """Write one event with the time in seconds since 1970."""
        row = {"time": round(time.time(), 3), "event": event, **facts}
        with self._lock:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            if self.speak:
                sys.stderr.write(_words(row) + "\n")
                sys.stderr.flush()


def read_events(path: Path) -> list[dict[str, Any]]:
    """Read all events of a log; none if there is no log."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [row for line in lines if isinstance(row := _row(line), dict)]


def _row(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # a process that was killed left half a line
        return None


def _words(row: dict[str, Any]) -> str:
    place = str(row.get("job", "")) + (f" {row['shard']}" if "shard" in row else "")
    attempt = f", attempt {row['attempt']}" if row.get("attempt", 1) > 1 else ""
    words = {
        "job": lambda: f"{row['tasks']} tasks, {row['workers']} at once",
        "start": lambda: "started" + attempt + (f" on GPU {row['gpu']}" if row.get("gpu") else ""),
        "done": lambda: "done" + attempt,
        "again": lambda: f"ended with {row['exit']}{attempt}, starting it again: {row['said']}",
        "failed": lambda: f"failed with {row['exit']}{attempt} ({row['why']}): {row['said']}",
        "stopped": lambda: f"stopped{attempt}: {row.get('reason') or row.get('said')}",
    }
    say = words.get(str(row["event"]))
    return f"{place}: {say() if say else row['event']}"
