"""Feed every reader with mutated inputs, then let a coverage-guided fuzzer look for more; exit 1 if something breaks.

    python scripts/fuzz.py --inputs 5000 --minutes 3

The second part needs Atheris (requirements/fuzz.in), which exists for Linux; without it that part is left out, aloud.
Inputs that break a reader are kept in the folder ``--keep`` for a test of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path

from inkbatch.cli.outcome import run_script
from inkbatch.testing.fuzzing import campaign, feed, readers
from inkbatch.text import bytes_text, seconds_text


def main() -> int:
    """Run both parts; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=5000, help="mutated inputs of the first part")
    parser.add_argument("--minutes", type=float, default=3.0, help="of the second part, over all readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--guided", help="reader to fuzz in this process; used by the second part itself")
    options = parser.parse_args()
    if options.guided:
        return guided(options.guided, options.minutes * 60)
    broken = mutate(options.inputs, options.seed, options.keep)
    if importlib.util.find_spec("atheris") is None:
        print("coverage-guided part left out: atheris is not installed (pip install -r requirements/fuzz.in)")
        return 1 if broken else 0
    share = options.minutes / len(readers())
    for name in readers():
        command = [sys.executable, __file__, "--guided", name, "--minutes", str(share)]
        ended = subprocess.run(command, capture_output=True, text=True)
        state = "BROKEN" if ended.returncode else "sound"
        print(f"{name}: coverage-guided for {seconds_text(share * 60)}: {state}")
        if ended.returncode:
            broken += 1
            print(ended.stderr[-3000:])
    return 1 if broken else 0


def mutate(count: int, seed: int, keep: Path) -> int:
    """Feed mutated inputs; returns how many broke a reader."""
    begun, broken = time.monotonic(), 0
    for name, data, error in campaign(count, seed):
        broken += 1
        keep.mkdir(parents=True, exist_ok=True)
        place = keep / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
        place.write_bytes(data)
        print(f"{place}: {''.join(traceback.format_exception(error))}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    seconds = time.monotonic() - begun
    spent = f"{seconds_text(seconds)}, {bytes_text(peak)} at most"
    print(f"{count} mutated inputs over {len(readers())} readers: {broken} broken, {spent}")
    return broken


def guided(name: str, seconds: float) -> int:
    """Fuzz one reader by coverage; Atheris ends the process when it is done."""
    import atheris

    with atheris.instrument_imports(include=["inkbatch", "yaml", "tifffile"]):
        reader = readers()[name]
        feed(reader, reader.seeds()[0])  # imports what it needs
    corpus = Path(".fuzz-corpus", name)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(reader.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(
        [sys.argv[0], str(corpus), f"-max_total_time={max(1, round(seconds))}", "-max_len=65536", "-rss_limit_mb=4096"],
        lambda data: (feed(reader, data), None)[1],
    )
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main, "python scripts/fuzz.py"))
