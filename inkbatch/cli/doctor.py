"""`inkbatch doctor`; `register` adds it to an app."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from inkbatch.cli.options import ConfigFile, Root, Sets, chosen_root
from inkbatch.config import ends_with_check
from inkbatch.errors import ConfigError

if TYPE_CHECKING:
    from inkbatch.run.doctor import Finding

SIGNS = {"good": "ok  ", "note": "note", "bad": "FAIL"}


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("doctor")(doctor)


def doctor(
    name: Annotated[
        str | None, typer.Argument(help="Name of the report under ROOT/doctor.", show_default=False)
    ] = None,
    root: Root = None,
    device: Annotated[
        str | None, typer.Option(help="Device that must be usable: auto (default), cuda, mps or cpu.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="Number of GPUs that must be usable.")] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    log: Annotated[str, typer.Option(help="plain, or json (one object).")] = "plain",
) -> None:
    """Check this machine.

    The first job to send to a new engine. Checks driver, CUDA, a matrix product per GPU (also in bfloat16), /dev/shm,
    disk, memory, reading and writing under ROOT, and the scheduler's variables. The report stays under ROOT/doctor. A
    missing GPU that was asked for is exit code 65. Further needs through --set: shm=4GiB, disk=20GiB, memory=14GiB.
    """
    if log not in ("plain", "json", "auto"):
        raise ConfigError(f"--log: expected plain or json, got {log!r}")
    from inkbatch.steps import doctor as step

    options = {"name": name, "root": chosen_root(root), "device": device, "gpus": gpus}
    job = step.DoctorConfig.load(config, sets or (), options)
    if ends_with_check(job):
        return
    findings = step.run(job)
    if log == "json":
        typer.echo(json.dumps(step.report(findings), ensure_ascii=False))
    else:
        _print_table(findings)
    step.require_sound(findings)


def _print_table(findings: list[Finding]) -> None:
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        typer.echo(f"{SIGNS[finding.state]}  {finding.what:<{width}}  {finding.detail}")
