"""Choose the CUDA flavour of torch for this machine: by the driver that nvidia-smi names, or as it was asked for.

Prints the flavour (``locked``, the CUDA 13 wheels of requirements/runtime.lock, or for example ``cu126``), and says why
on standard error. Exits with 64 where the driver is too old for it. Runs on the Python that makes the environment.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

LOCKED_DRIVER = (580,)  # CUDA 13
CUDA_12_DRIVER = (525, 60, 13)
EXIT_CONFIG = 64


def driver_version() -> str | None:
    """Ask nvidia-smi for the driver's version; None where there is no GPU of that make."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = found.stdout.split()
    return lines[0] if found.returncode == 0 and lines and lines[0][0].isdigit() else None


def choose(asked: str, driver: str | None) -> tuple[str, str]:
    """Choose a flavour; returns it with the reason.

    Raises:
        SystemExit: The driver is too old for it.
    """
    if driver is None:
        if asked != "auto":
            return asked, "as asked for; nvidia-smi names no driver"
        return "locked", "nvidia-smi names no driver; the CUDA 13 wheels run on a CPU, too"
    version = tuple(int(part) for part in driver.split(".") if part.isdecimal())
    flavour = asked
    if asked == "auto":
        flavour = "locked" if version >= LOCKED_DRIVER else "cu126"
    least = {"cpu": (0,), "locked": LOCKED_DRIVER}.get(
        flavour, LOCKED_DRIVER if flavour.startswith("cu13") else CUDA_12_DRIVER
    )
    if version < least:
        wanted = ".".join(map(str, least))
        cure = (
            "FLAVOUR=cu126 fits from 525.60.13 on"
            if least == LOCKED_DRIVER and version >= CUDA_12_DRIVER
            else ("update the driver, or set FLAVOUR=cpu")
        )
        sys.stderr.write(f"torch: expected driver {wanted} or newer for FLAVOUR={flavour}, got {driver}; {cure}\n")
        raise SystemExit(EXIT_CONFIG)
    return flavour, f"driver {driver}"


if __name__ == "__main__":
    chosen, why = choose(sys.argv[1] if len(sys.argv) > 1 else "auto", driver_version())
    sys.stderr.write(f"torch: FLAVOUR={chosen} ({why})\n")
    print(chosen)
