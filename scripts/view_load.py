"""Load the viewer as slow and as many clients would, and print how long answers take; exit 1 if one fails.

python scripts/view_load.py --clients 200 --slow 300
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from inkbatch.cli.outcome import run_script
from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.testing.load import asked, slow_clients
from inkbatch.text import bytes_text
from inkbatch.view.scene import Scene
from inkbatch.view.server import ViewServer
from inkbatch.view.viewer import Viewer

TIMEOUT_S = 30.0


def main() -> int:
    """Run every scene of load; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200, help="clients that ask at once")
    parser.add_argument("--slow", type=int, default=300, help="connections that get nowhere")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        labelled_segment(root, "seg", inked((512, 512), (10, 10, 40, 60)))
        with ViewServer(Viewer(Scene(["seg"], str(root))), port=0) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            port = int(server.server_address[1])
            failed += measured(f"{options.clients} clients at once", port, options.clients)
            for kind in ("silent", "head", "reader"):
                with slow_clients(port, options.slow, kind):
                    failed += measured(f"beside {options.slow} slow clients ({kind})", port, 20)
            begun = time.monotonic()
            server.shutdown()
            thread.join()
        print(f"ended in {time.monotonic() - begun:.2f} s")
    print(f"memory at most {bytes_text(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)}")
    return 1 if failed else 0


def measured(title: str, port: int, count: int) -> int:
    """Let `count` clients ask at once; prints their seconds and returns how many got no answer."""

    def ask(_: int) -> float:
        begun = time.monotonic()
        status = asked(port, "/scene", TIMEOUT_S)
        return time.monotonic() - begun if status == 200 else float("nan")

    with ThreadPoolExecutor(count) as pool:
        seconds = np.array(list(pool.map(ask, range(count))))
    failed = int(np.isnan(seconds).sum())
    median, most = np.nanmedian(seconds), np.nanmax(seconds)
    print(f"{title}: {failed} of {count} without an answer, median {median:.2f} s, longest {most:.2f} s", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(run_script(main, "python scripts/view_load.py"))
