"""Pack the GPU check for a machine without network: what the tree needs of itself, and unpacked wheels for its Python.

    python -m benchmarks.gpu_pack --to build/inkbatch-gpu.tar.xz
    python -m benchmarks.gpu_pack --there there.txt     # `pip freeze` or `pip list` of that machine

Without --there only torch and what it brings along are taken to be there. What the check does not use is left out:
S3 and clouds, the web, transformers, video. The archive must stay below --most-mb. On the machine:

    tar -xf inkbatch-gpu.tar.xz && cd inkbatch-gpu
    PYTHONPATH=$PWD:$PWD/site python3 -m benchmarks.gpu_check --out gpu.jsonl
"""

from __future__ import annotations

import argparse
import lzma
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from benchmarks.common import REPOSITORY
from benchmarks.gpu_trim import is_kept, stand_in_for_video
from inkbatch.cli.outcome import run_script

LOCK = REPOSITORY / "requirements" / "runtime.lock"
LINE = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)(?: *; *([^\\\n]+))?", re.MULTILINE)
NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_.-]*)")
PYTHON = "3.12"
GLIBC = (39, 35, 34, 31, 28, 27, 26, 24, 17)  # what wheels for Linux name; pip takes each at its word
MEGABYTE = 1_000_000

WITH_TORCH = {
    *("filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "numpy", "setuptools", "sympy"),
    *("torch", "triton", "typing-extensions"),
}
WITH_TORCH_PREFIXES = ("nvidia-", "cuda-")
UNUSED = {
    *("aiobotocore", "aioitertools", "boto3", "botocore", "jmespath", "s3fs", "s3transfer", "wrapt"),  # S3, AWS
    *("aiohappyeyeballs", "aiohttp", "aiosignal", "attrs", "frozenlist", "multidict", "propcache", "yarl"),  # web
    *("colorama", "hf-xet", "httpx2-jsfetch"),  # other systems, downloads
    *("transformers", "tokenizers", "regex"),  # SegFormer alone
}
TORCHVISION = "0.26.0"  # the one for torch 2.11; torch itself is that of the machine
TREE = ("benchmarks", "inkbatch", "jobs", "tests/models/golden", "pyproject.toml", "LICENSE")
TOP = "inkbatch-gpu"
COMPRESSED = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9}]  # Python and tar read it


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
    present = WITH_TORCH | UNUSED | set(there)
    return {
        name: TORCHVISION if name == "torchvision" else version
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


def unpack(wheels: Path, site: Path) -> None:
    """Unpack of each wheel what the check uses."""
    for wheel in sorted(wheels.glob("*.whl")):
        package = str(canonicalize_name(wheel.name.partition("-")[0]))
        with zipfile.ZipFile(wheel) as archive:
            kept = [name for name in archive.namelist() if not name.endswith("/") and is_kept(package, name)]
            archive.extractall(site, kept)
    stand_in_for_video(site)


def tree_files() -> list[str]:
    """List the files of the tree that the check uses, of those that git knows."""
    line = ["git", "ls-files", "-z", *TREE]
    listed = subprocess.run(line, cwd=REPOSITORY, capture_output=True, check=True).stdout
    return [name for name in listed.decode().split("\0") if name and (REPOSITORY / name).is_file()]


def write_archive(place: Path, site: Path, names: Sequence[str]) -> None:
    """Write tree and packages into one archive, like files side by side."""
    packages = sorted((file for file in site.rglob("*") if file.is_file()), key=lambda file: (file.suffix, file))
    with lzma.open(place, "wb", filters=COMPRESSED) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            archive.add(REPOSITORY / name, f"{TOP}/{name}")
        for file in packages:
            archive.add(file, f"{TOP}/site/{file.relative_to(site)}")


def main(arguments: Sequence[str] | None = None) -> int:
    known = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    place = REPOSITORY / "build" / f"{TOP}.tar.xz"
    known.add_argument("--to", type=Path, default=place, metavar="FILE", help=f"the archive ({place})")
    known.add_argument("--there", type=Path, metavar="FILE", help="pip freeze or pip list of the machine")
    known.add_argument("--also", nargs="+", default=[], metavar="NAME", help="carry these although they are there")
    known.add_argument("--most-mb", type=float, default=60.0, help="largest size of the archive (60)")
    known.add_argument("--dry-run", action="store_true", help="print what would be fetched")
    found = known.parse_args(arguments)
    there = names_in(found.there.read_text(encoding="utf-8")) if found.there else set()
    wanted = missing(locked(LOCK.read_text(encoding="utf-8")), there - names_in("\n".join(found.also)))
    print("\n".join(f"{name}=={version}" for name, version in wanted.items()))
    if found.dry_run:
        return 0
    found.to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="inkbatch-gpu-") as folder:
        wheels, site = Path(folder) / "wheels", Path(folder) / "site"
        site.mkdir()
        download(wanted, wheels)
        unpack(wheels, site)
        write_archive(found.to, site, tree_files())
        fetched = sum(wheel.stat().st_size for wheel in wheels.glob("*.whl"))
    print(f"{len(wanted)} wheels of {fetched / MEGABYTE:.1f} MB")
    return report(found.to, found.most_mb)


def report(archive: Path, most_mb: float) -> int:
    """Print the size; returns 1 where it is too much."""
    size = archive.stat().st_size / MEGABYTE
    fits = size < most_mb
    verdict = f"fits {most_mb:g} MB" if fits else f"expected less than {most_mb:g} MB: name what is there with --there"
    print(f"{archive}: {size:.1f} MB, {verdict}")
    return int(not fits)


if __name__ == "__main__":
    sys.exit(run_script(main, "python -m benchmarks.gpu_pack"))
