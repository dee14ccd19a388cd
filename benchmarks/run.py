"""Run the benchmarks, one after the other, each in a process of its own.

    python -m benchmarks.run                       # all
    python -m benchmarks.run null prepare --json figures
    python -m benchmarks.run --quick               # shows that they run; measures nothing

`models` takes --quick and --json alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import parser
from inkbatch.cli.outcome import run_script

BENCHMARKS = (
    "null",
    "overhead",
    "prepare",
    "preflight",
    "render",
    "memory",
    "durable",
    "zarr",
    "train",
    "view",
    "edit",
    "maps",
    "tta",
    "sweep",
    "prompts",
    "evidence",
    "instances",
    "models",
)


def command(name: str, found: argparse.Namespace) -> list[str]:
    """Make the command of one benchmark; `models` has options of its own."""
    line = [sys.executable, "-m", f"benchmarks.bench_{name}", *(["--quick"] if found.quick else [])]
    if name == "models":
        return line if found.json is None else [*line, "--json", str(found.json.resolve() / "models.json")]
    for option in ("json", "layers", "scratch"):
        folder: Path | None = getattr(found, option)
        line += [] if folder is None else [f"--{option}", str(folder.resolve())]
    return line if found.rounds is None else [*line, "--rounds", str(found.rounds)]


def main(arguments: Sequence[str] | None = None) -> int:
    known = parser(__doc__)
    known.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(BENCHMARKS)}")
    found = known.parse_args(arguments)
    unknown = sorted(set(found.names) - set(BENCHMARKS))
    if unknown:
        known.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    repository = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}

    def fails(name: str) -> bool:
        return subprocess.run(command(name, found), cwd=repository, env=environment, check=False).returncode != 0

    failed = [name for name in found.names or BENCHMARKS if fails(name)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_script(main, "python -m benchmarks.run"))
