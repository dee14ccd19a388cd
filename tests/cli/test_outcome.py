"""Scripts of the repository end as commands do: a clear message, and the same exit codes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from inkbatch.cli.outcome import run_script
from inkbatch.errors import EXIT_BUG, EXIT_CONFIG, EXIT_DATA, ConfigError, DataError

REPOSITORY = Path(__file__).parent.parent.parent
MAKEFILE = (REPOSITORY / "Makefile").read_text()
STARTED = sorted({f"scripts/{name}" for name in re.findall(r"scripts/(\w+\.py)", MAKEFILE)})
STARTED += sorted({f"benchmarks/{name}.py" for name in re.findall(r"-m benchmarks\.(\w+)", MAKEFILE)})
BARE = {"scripts/smoke_pythons.py", "scripts/torch_flavour.py"}  # of Pythons in which inkbatch is not installed


def ended(main, capsys) -> tuple[int, str]:
    code = run_script(main, "python scripts/x.py")
    return code, capsys.readouterr().err


def test_a_missing_file_is_named_without_a_traceback(tmp_path, capsys):
    code, said = ended(lambda: (tmp_path / "gone.png").read_bytes(), capsys)
    assert code == EXIT_DATA
    assert said.startswith(f"inkbatch: {tmp_path}/gone.png: No such file or directory; check the arguments")
    assert "Traceback" not in said


def test_wrong_arguments_are_wrong_configuration(capsys):
    code, said = ended(lambda: argparse.ArgumentParser().parse_args(["--rounds", "many"]), capsys)
    assert code == EXIT_CONFIG
    assert "unrecognized arguments: --rounds many" in said


@pytest.mark.parametrize(("error", "code"), [(ConfigError("x"), EXIT_CONFIG), (DataError("x"), EXIT_DATA)])
def test_errors_keep_their_codes(error, code, capsys):
    def main():
        raise error

    assert ended(main, capsys)[0] == code


def test_a_failure_that_names_no_file_is_a_bug(capsys):
    def main():
        raise OSError("no file")

    assert ended(main, capsys)[0] == EXIT_BUG


@pytest.mark.parametrize("script", [name for name in STARTED if name not in BARE])
def test_every_script_that_make_starts_ends_so(script):
    text = (REPOSITORY / script).read_text()
    words = f"python {script}" if script.startswith("scripts") else f"python -m benchmarks.{Path(script).stem}"
    assert f'run_script(main, "{words}")' in text
