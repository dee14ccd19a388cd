"""Entry point of every process: ready for a stop signal before anything else is imported.

A job that is stopped while it starts has done nothing and may be tried again: it ends with 75, as later, and not with
the 143 of an unprepared process. `run.signals` takes over when a job begins.
"""

import os
import signal

STOPS = (signal.SIGTERM, signal.SIGUSR1)
EXIT_TRY_AGAIN = 75  # as in inkbatch.errors, which is imported later


def stop_before_work(number: int, _frame: object) -> None:
    """End at a signal that came while modules were loaded: nothing is lost, and the exit code asks for a retry."""
    os.write(2, f"inkbatch: {signal.Signals(number).name} before the work began; run the same command again\n".encode())
    os._exit(EXIT_TRY_AGAIN)


def main() -> None:
    """Run the command line."""
    for number in (*STOPS, signal.SIGINT):
        signal.signal(number, stop_before_work)
    from inkbatch.cli.app import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on commands handle it

    try:
        run()
    finally:
        for number in STOPS:  # the exit code is known, and Python removes our handlers before it ends
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
