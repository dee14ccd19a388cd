"""Where every process of inkbatch begins: ready for a stop before anything else is imported.

A job that is stopped while it still starts has done nothing and may be tried again: it ends with 75, as later, and not
with the 143 of a process that nobody prepared. `run.signals` takes over when a job begins.
"""

import os
import signal

EXIT_TRY_AGAIN = 75  # as in inkbatch.errors, which is imported later


def _stopped(number: int, _frame: object) -> None:
    os.write(2, f"inkbatch: {signal.Signals(number).name} before the work began; nothing was done\n".encode())
    os._exit(EXIT_TRY_AGAIN)


def main() -> None:
    """Run the command line."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _stopped)
    from inkbatch.cli import main as run

    run()


if __name__ == "__main__":
    main()
