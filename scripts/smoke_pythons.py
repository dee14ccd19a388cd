"""Run the demo with the oldest and the newest Python of this machine that inkbatch supports.

    python scripts/smoke_pythons.py             (make test-pythons)

The Python that runs this script is used as it is, with what is installed beside it. Another one gets an environment of
its own under ``.venv-pythons``, filled from ``requirements/runtime.lock``; nothing but locked packages is downloaded,
and no interpreter. A machine with one Python tests that one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SUPPORTED = ((3, 11), (3, 12), (3, 13), (3, 14))
TARGET_F05 = 0.9
_ASK = "import sys; print(*sys.version_info[:3], sys.executable)"


@dataclass(frozen=True, order=True)
class Interpreter:
    """A Python of this machine.

    Attributes:
        version: Major, minor and micro number.
        program: Its executable.
    """

    version: tuple[int, int, int]
    program: str

    @property
    def name(self) -> str:
        """Return its version as text, for example ``3.13.0``."""
        return ".".join(map(str, self.version))


def interpreter_of(program: str) -> Interpreter | None:
    """Ask a program which Python it is; None where it does not start (a pyenv shim of another version, say)."""
    try:
        asked = subprocess.run([program, "-c", _ASK], capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    if asked.returncode != 0:
        return None
    major, minor, micro, executable = asked.stdout.rstrip("\n").split(" ", 3)
    return Interpreter((int(major), int(minor), int(micro)), executable)


def programs() -> list[str]:
    """List names and paths under which a supported Python may be found: on the PATH, then under pyenv's root."""
    names = [f"python{major}.{minor}" for major, minor in SUPPORTED]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return names + [str(path) for name in names for path in sorted(pyenv.glob(f"*/bin/{name}"))]


def oldest_and_newest(found: list[Interpreter], own: Interpreter) -> list[Interpreter]:
    """Choose the oldest and the newest supported Python; `own` stands for every other one of its minor version."""
    supported = [one for one in found if one.version[:2] in SUPPORTED and one.version[:2] != own.version[:2]]
    ordered = sorted([*supported, own])
    return sorted({ordered[0], ordered[-1]})


def environment_of(interpreter: Interpreter, own: Interpreter, folder: Path) -> Path:
    """Return the Python of an environment with the runtime lock, and make that environment where it is missing."""
    if interpreter == own:
        return Path(own.program)
    place = folder / interpreter.name
    uv = Path(sys.executable).with_name("uv")
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([uv, "venv", "--quiet", "--python", interpreter.program, place], check=True)
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python]
    subprocess.run([*install, "--require-hashes", "-r", REPOSITORY / "requirements" / "runtime.lock"], check=True)
    subprocess.run([*install, "--no-deps", "-e", REPOSITORY], check=True)
    return python


def demo_f05(python: Path) -> float:
    """Import inkbatch, print its help and run the demo with `python`; return the demo's F0.5.

    Raises:
        SystemExit: A command failed; its output is printed.
    """
    with tempfile.TemporaryDirectory() as root:
        infer = ("-m", "inkbatch", "infer", "demo", "--bundle", "demo", "--root", root)
        for arguments in (
            ("-W", "error", "-c", "import inkbatch"),
            ("-m", "inkbatch", "--help"),
            ("-m", "inkbatch", "prepare", "demo", "--root", root),
            infer,
        ):
            ended = subprocess.run([python, *arguments], cwd=root, capture_output=True, text=True, timeout=600)
            if ended.returncode != 0:
                raise SystemExit(
                    f"{python} {' '.join(arguments)}: exit {ended.returncode}\n{ended.stdout}{ended.stderr}"
                )
        (score,) = Path(root).glob("predictions/demo/*/score.json")
        return float(json.loads(score.read_text(encoding="utf-8"))["f05"])


def main() -> None:
    """Run the demo on the chosen interpreters and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".venv-pythons", help="where environments lie")
    folder = parser.parse_args().folder
    own = interpreter_of(sys.executable)
    assert own is not None, sys.executable
    found = [one for one in map(interpreter_of, programs()) if one is not None]
    for interpreter in oldest_and_newest(found, own):
        started = time.perf_counter()
        f05 = demo_f05(environment_of(interpreter, own, folder))
        print(f"Python {interpreter.name}: demo F0.5 {f05:.3f} ({time.perf_counter() - started:.0f} s)", flush=True)
        if f05 < TARGET_F05:
            raise SystemExit(f"Python {interpreter.name}: expected F0.5 of at least {TARGET_F05}, got {f05:.3f}")


if __name__ == "__main__":
    main()
