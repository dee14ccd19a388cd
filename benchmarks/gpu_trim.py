"""Make unpacked wheels small: files that the GPU check never opens are left out, video libraries become stand-ins."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

KEPT = {
    "imagecodecs": (
        r"imagecodecs/\w+\.py",
        r"imagecodecs/_(shared|shared_cython|imcd|deflate|zlib|zstd|jpeg8|png)\.abi3\.so",
        r"imagecodecs\.libs/lib(deflate|zstd|jpeg|png16|z)-.*",
    ),
    "pillow": (
        r"PIL/\w+\.py",
        r"PIL/_imaging(math|morph)?\..*\.so",
        r"pillow\.libs/lib(tiff|jpeg|openjp2|xcb|Xau|lzma|zstd|webp|sharpyuv)-.*",
    ),
    "torchvision": (r"torchvision/.*\.py", r"torchvision/_C\.so", r"torchvision\.libs/libcudart.*"),
}
"""Contents of large wheels that are kept, beside their metadata; of the others all is kept."""

OPENCV_LIBRARIES = "opencv_python_headless.libs"
VIDEO = re.compile(r"lib(avcodec|avformat|avutil|swscale|swresample|vpx|ssl|crypto|drm)-")
NEVER = re.compile(r".*\.pyi")
SYMBOL = re.compile(r"\bUND\s+(\w+)@(\w+)")
NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")
VERSION_OF = re.compile(r"File: (\S+) .*?Name: (\w+)", re.DOTALL)


def is_kept(package: str, member: str) -> bool:
    """Tell whether a file of a wheel is packed.

    Args:
        package: Name of the package, as in the lock.
        member: Path inside the wheel.
    """
    if NEVER.fullmatch(member) or (member.startswith(OPENCV_LIBRARIES) and VIDEO.match(Path(member).name)):
        return False
    rules = KEPT.get(package)
    return rules is None or ".dist-info/" in member or any(re.fullmatch(rule, member) for rule in rules)


def stand_in_for_video(site: Path) -> list[str]:
    """Compile stand-ins for the video libraries that OpenCV names: who calls one ends the process.

    Pictures do not need them, and they are a quarter of OpenCV.

    Args:
        site: Folder with the unpacked wheels.

    Returns:
        Names of the libraries that were made; none where OpenCV is not packed.
    """
    module, folder = site / "cv2" / "cv2.abi3.so", site / OPENCV_LIBRARIES
    if not module.exists():
        return []
    wanted = [name for name in NEEDED.findall(_read("--dynamic", module)) if VIDEO.match(name)]
    versions = dict(VERSION_OF.findall(_read("--version-info", module)))
    symbols = SYMBOL.findall(_read("--dyn-syms", module))
    for library in wanted:
        version = versions[library]
        compile_library(folder / library, version, [name for name, its in symbols if its == version])
    return wanted


def compile_library(library: Path, version: str, names: list[str]) -> None:
    source, script = library.with_suffix(".c"), library.with_suffix(".map")
    source.write_text("\n".join(f"void {name}(void) {{ __builtin_trap(); }}" for name in names) + "\n")
    script.write_text(f"{version} {{ global: *; }};\n")
    linked = [f"-Wl,-soname,{library.name}", f"-Wl,--version-script={script}", "-Wl,--strip-all"]
    _run("gcc", "-shared", "-fPIC", "-nostdlib", "-w", *linked, "-o", str(library), str(source))
    source.unlink()
    script.unlink()


def _read(what: str, binary: Path) -> str:
    return _run("readelf", "--wide", what, str(binary))


def _run(*line: str) -> str:
    """Run a tool of the compiler's.

    Raises:
        SystemExit: It is not installed, or fails.
    """
    try:
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        cure = "install it (Debian: gcc, binutils), or name the machine's OpenCV with --there"
        raise SystemExit(f"{line[0]}: not found, and OpenCV has to be made smaller; {cure}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{line[0]} failed: {error.stderr.strip()}") from error
