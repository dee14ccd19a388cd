"""Pack what a bare GPU machine lacks for the GPU check: wheels of the lock for its Python, beside the working tree.

    python -m benchmarks.gpu_pack --to build/gpu
    python -m benchmarks.gpu_pack --to build/gpu --there there.txt     # `pip freeze` or `pip list` of that machine

Without --there only torch and what it brings along are taken to be there. What only S3 and clouds need is left out: the
check reads and writes local disks. Wheels and tree together must stay below --most-mb. On the machine, in the tree:

    python3 -m pip install --no-index --no-deps --target /tmp/site build/gpu/*.whl
    PYTHONPATH=$PWD:/tmp/site python3 -m benchmarks.gpu_check --out gpu.jsonl
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from benchmarks.common import REPOSITORY

LOCK = REPOSITORY / "requirements" / "runtime.lock"
LINE = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)(?: *; *([^\\\n]+))?", re.MULTILINE)
NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_.-]*)")
PYTHON = "3.12"
GLIBC = (39, 35, 34, 31, 28, 27, 26, 24, 17)  # what wheels for Linux name; pip takes each at its word
MEGABYTE = 1_000_000

WITH_TORCH = {
    *("filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "numpy", "pillow", "setuptools", "sympy"),
    *("torch", "torchvision", "triton", "typing-extensions"),
}
WITH_TORCH_PREFIXES = ("nvidia-", "cuda-")
ELSEWHERE_ONLY = {
    *("aiobotocore", "aioitertools", "boto3", "botocore", "jmespath", "s3fs", "s3transfer", "wrapt"),  # S3, AWS
    *("colorama", "hf-xet", "httpx2-jsfetch", "truststore"),  # other systems, downloads
}


def target_environment() -> dict[str, str]:
    """Return the markers' words for Linux on x86-64 with `PYTHON`."""
    return {
        **{"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "implementation_name": "cpython"},
        **{"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"},
        "platform_python_implementation": "CPython",
    }


def locked(text: str) -> dict[str, str]:
    """Version by name of what a universal lock means for the target."""
    environment = target_environment()
    return {
        canonicalize_name(name): version
        for name, version, marker in LINE.findall(text)
        if not marker.strip() or Marker(marker.strip()).evaluate(environment)
    }


def missing(versions: Mapping[str, str], there: Collection[str]) -> dict[str, str]:
    """Contents of a pack.

    Args:
        versions: Version by name of all that the lock means.
        there: Names that the machine has beside torch.
    """
    present = WITH_TORCH | ELSEWHERE_ONLY | set(there)
    return {
        name: version
        for name, version in versions.items()
        if name not in present and not name.startswith(WITH_TORCH_PREFIXES)
    }


def names_in(text: str) -> set[str]:
    """Read the names of a `pip freeze` or `pip list`, one per line."""
    lines = (NAME.match(line.strip()) for line in text.splitlines())
    return {str(canonicalize_name(found[1])) for found in lines if found}


def download(wanted: Mapping[str, str], folder: Path) -> None:
    """Fetch wheels into a folder.

    Raises:
        SystemExit: pip fails; it has said why.
    """
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in GLIBC] + ["--platform=manylinux2014_x86_64"]
    target = ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms]
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", *target]
    done = subprocess.run([*line, "-d", str(folder), *(f"{name}=={version}" for name, version in wanted.items())])
    if done.returncode:
        raise SystemExit("pip download failed; see above")


def tree_bytes() -> int:
    """Size of the files that git knows."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    places = [REPOSITORY / name for name in listed.decode().split("\0") if name]
    return sum(place.stat().st_size for place in places if place.is_file())


def main(arguments: Sequence[str] | None = None) -> int:
    known = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known.add_argument("--to", type=Path, default=REPOSITORY / "build" / "gpu", metavar="DIR", help="where wheels go")
    known.add_argument("--there", type=Path, metavar="FILE", help="pip freeze or pip list of the machine")
    known.add_argument("--also", nargs="+", default=[], metavar="NAME", help="carry these although they are there")
    known.add_argument("--most-mb", type=float, default=60.0, help="largest size of wheels and tree together (60)")
    known.add_argument("--dry-run", action="store_true", help="print what would be fetched")
    found = known.parse_args(arguments)
    there = names_in(found.there.read_text(encoding="utf-8")) if found.there else set()
    wanted = missing(locked(LOCK.read_text(encoding="utf-8")), there - names_in("\n".join(found.also)))
    print("\n".join(f"{name}=={version}" for name, version in wanted.items()))
    if found.dry_run:
        return 0
    found.to.mkdir(parents=True, exist_ok=True)
    for old in found.to.glob("*.whl"):
        old.unlink()
    download(wanted, found.to)
    return report(found.to, found.most_mb)


def report(folder: Path, most_mb: float) -> int:
    """Print the sizes, largest first; returns 1 where they are too much together."""
    sizes = sorted(((place.stat().st_size, place.name) for place in folder.glob("*.whl")), reverse=True)
    for size, name in sizes:
        print(f"{size / MEGABYTE:8.1f} MB  {name}")
    wheels, tree = sum(size for size, _ in sizes), tree_bytes()
    total = (wheels + tree) / MEGABYTE
    fits = total < most_mb
    verdict = f"fits {most_mb:g} MB" if fits else f"expected less than {most_mb:g} MB: name what is there with --there"
    print(f"{len(sizes)} wheels {wheels / MEGABYTE:.1f} MB, tree {tree / MEGABYTE:.1f} MB: {total:.1f} MB, {verdict}")
    return int(not fits)


if __name__ == "__main__":
    sys.exit(main())
