"""Slurm: job arrays that requeue themselves on code 75, with dependencies, in containers or a plain environment."""

from __future__ import annotations

import getpass
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from inkbatch.errors import StorageError
from inkbatch.launch.base import (
    EngineSettings,
    Feature,
    JobState,
    Launcher,
    Submitted,
    register_launcher,
    split_array,
    tail,
)
from inkbatch.launch.plan import ArraySpec, Chain
from inkbatch.run.deadline import DEADLINE_VARIABLE

STATES = {
    "PENDING": "waiting",
    "REQUEUED": "waiting",
    "REQUEUE_HOLD": "waiting",
    "SUSPENDED": "waiting",
    "CONFIGURING": "running",
    "RUNNING": "running",
    "COMPLETING": "running",
    "COMPLETED": "done",
    "CANCELLED": "cancelled",
}
CURES = {
    "DependencyNeverSatisfied": "a job that it waits for has failed; launch again, what is stored is kept",
    "QOSMaxJobsPerUserLimit": "your quota of running jobs is used; it starts when others end",
    "AssocGrpGRES": "your group's GPUs are all in use",
    "ReqNodeNotAvail": "no node of that kind is up; ask sinfo, or choose another partition",
    "PartitionTimeLimit": "the partition allows less time; lower launch.time_limit",
}


class SlurmSettings(EngineSettings):
    """Settings of the Slurm engine.

    Attributes:
        partition: ``--partition``; None is the cluster's default.
        gpu_partition: The same for jobs that want a GPU; None is `partition`.
        account: ``--account``.
        gpu_request: Option that requests GPUs: ``gres`` (``--gres=gpu:n``) or ``gpus-per-task``.
        gpu_type: Kind of GPU, for example ``a100``.
        container: ``none`` (a plain environment), ``apptainer`` or ``pyxis``.
        image: The image: a ``.sif`` file or ``docker://…`` for apptainer, a squashfs file or address for pyxis.
        mounts: Folders that containers see, beside ROOT and other local places of the chain.
        program: Command of inkbatch in a plain environment.
        setup: Shell lines before it: ``module load …``, ``source …/activate``.
        log_folder: Folder for logs that the nodes share; None is the launch's own folder.
        max_array: Largest array (the cluster's MaxArraySize less 1).
        warn_s: Seconds between SIGUSR1 and the time limit: at least the 20 s that a job takes to stop.
        options: More lines for ``#SBATCH``, for example ``--qos=long``.
    """

    partition: str | None = None
    gpu_partition: str | None = None
    account: str | None = None
    gpu_request: Literal["gres", "gpus-per-task"] = "gres"
    gpu_type: str | None = None
    container: Literal["none", "apptainer", "pyxis"] = "none"
    image: str | None = None
    mounts: tuple[str, ...] = ()
    program: tuple[str, ...] = ("inkbatch",)
    setup: tuple[str, ...] = ()
    log_folder: str | None = None
    max_array: int = Field(1000, ge=1)
    warn_s: int = Field(60, ge=30)
    options: tuple[str, ...] = ()


# SIGUSR1 comes from us (--signal) ahead of the limit: requeue. SIGTERM comes from Slurm (cancel, preemption, requeue):
# Slurm decides, and a job that requeued itself would come back to life after scancel.
WRAPPER = """\
most_restarts={restarts}
why=""
child=""
signals=0
forward() {{ why=$1; signals=$((signals + 1)); if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null || true; fi; }}
trap 'forward usr1' USR1
trap 'forward term' TERM
{command} &
child=$!
code=0
while :; do
  before=$signals
  wait "$child" && now=0 || now=$?
  [ "$now" = 127 ] || code=$now
  [ "$signals" = "$before" ] && break  # no signal cut this wait short: the code is the child's
done
if [ "$code" = 75 ] && [ "$why" != term ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt "$most_restarts" ]; then
  trap '' TERM
  echo "inkbatch: code 75, requeueing (restart $((${{SLURM_RESTART_COUNT:-0}} + 1)) of at most $most_restarts)" >&2
  if scontrol requeue "$SLURM_JOB_ID"; then sleep 60; fi
fi
exit "$code"
"""


@register_launcher
class SlurmLauncher(Launcher):
    """``sbatch`` scripts, one per array, and the order in which they are submitted."""

    name: ClassVar[str] = "slurm"
    settings_class: ClassVar[type[EngineSettings]] = SlurmSettings
    supports: ClassVar[frozenset[Feature]] = frozenset(Feature)
    settings: SlurmSettings

    def render(self, chain: Chain) -> dict[str, str]:
        """Render one ``.sbatch`` file per array, and ``submit.sh``, which does by hand what `submit` does."""
        self.check(chain)
        files = {}
        rows = ["#!/bin/bash", "# Submits this chain by hand; run it in the folder of these files.", "set -eu"]
        if self.settings.log_folder:
            rows.append(f"mkdir -p {shlex.quote(self.settings.log_folder)}")  # Slurm makes no folder for logs
        variables = {spec.job: _variable(number, spec) for number, spec in enumerate(chain.jobs, start=1)}
        for spec in chain.jobs:
            names = []
            for part, (first, count) in enumerate(split_array(spec.shards, self.settings.max_array)):
                name = _part_name(spec.job, part)
                files[f"{name}.sbatch"] = self._script(spec, chain, name, first, count)
                waits = [f"${{{variables[job]}}}" for job in spec.after]
                command = ["sbatch", "--parsable", *self._dependency(waits), f"{name}.sbatch"]
                variable = variables[spec.job] + (f"_part_{part + 1}" if part else "")
                rows.append(f'{variable}="$({" ".join(command)})"; {variable}="${{{variable}%%;*}}"')
                names.append(f"${{{variable}}}")
            if len(names) > 1:
                rows.append(f'{variables[spec.job]}="{":".join(names)}"')
        return {**files, "submit.sh": "\n".join(rows) + "\n"}

    def submit(self, chain: Chain, folder: Path) -> Submitted:
        """Submit each array with ``sbatch``, those that wait with ``--dependency``.

        Raises:
            StorageError: The controller refused or did not answer; arrays that were already submitted are cancelled.
        """
        self.write(chain, folder)
        if self.settings.log_folder:
            Path(self.settings.log_folder).mkdir(parents=True, exist_ok=True)
        ids: dict[str, list[str]] = {}
        for spec in chain.jobs:
            waits = [array for job in spec.after for array in ids[job]]
            for part, _ in enumerate(split_array(spec.shards, self.settings.max_array)):
                script = folder / f"{_part_name(spec.job, part)}.sbatch"
                argv = ["sbatch", "--parsable", f"--chdir={folder.resolve()}", *self._dependency(waits), str(script)]
                ended = self.run(argv, "")
                if ended.code:
                    for array in (array for arrays in ids.values() for array in arrays):
                        self.run(["scancel", array], "")
                    raise StorageError(f"sbatch {script.name}: {ended.err.strip() or ended.out.strip()}")
                ids.setdefault(spec.job, []).append(ended.out.strip().split(";")[0])
        shards = {spec.job: spec.shards for spec in chain.jobs}
        return Submitted(self.name, chain.launch, ids, shards, str(folder.resolve()))

    def status(self, submitted: Submitted) -> list[JobState]:
        """Ask ``scontrol``; jobs that it forgot, some minutes after their end, are ``lost``."""
        states = []
        for job, arrays in submitted.jobs.items():
            counts: dict[str, int] = dict.fromkeys(("waiting", "running", "done", "failed", "cancelled", "lost"), 0)
            notes: list[str] = []
            for array in arrays:
                ended = self.run(["scontrol", "-o", "show", "job", array], "")
                for row in ended.out.splitlines() if ended.code == 0 else ():
                    facts = dict(re.findall(r"(\w+)=(\S*)", row))
                    state = STATES.get(facts.get("JobState", ""), "failed")
                    counts[state] += _tasks_in(facts.get("ArrayTaskId", "0"))
                    reason = facts.get("Reason", "None")
                    if state in ("waiting", "failed") and reason not in ("None", "Dependency", "Priority", "Resources"):
                        note = f"{reason}: {CURES[reason]}" if reason in CURES else reason
                        notes += [] if note in notes else [note]
            counts["lost"] = max(0, submitted.shards[job] - sum(counts.values()))
            if counts["lost"]:
                notes.append("lost: Slurm has forgotten these tasks; the stored units say whether they are done")
            states.append(JobState(job, counts, notes))
        return states

    def cancel(self, submitted: Submitted) -> list[str]:
        """Cancel all arrays with ``scancel``."""
        arrays = [array for ids in submitted.jobs.values() for array in ids]
        ended = self.run(["scancel", "--user", getpass.getuser(), *arrays], "")
        return [f"cancelled {', '.join(arrays)}" if ended.code == 0 else ended.err.strip()]

    def logs(self, submitted: Submitted, job: str, shard: int) -> Iterable[str]:
        """Return the last lines of a task's log."""
        part, index = divmod(shard, self.settings.max_array)
        folder = Path(self.settings.log_folder or submitted.folder)
        return tail(folder / f"{_part_name(job, part)}-{index}.log")

    def _dependency(self, arrays: list[str]) -> list[str]:
        return [f"--dependency=afterok:{':'.join(arrays)}", "--kill-on-invalid-dep=yes"] if arrays else []

    def _script(self, spec: ArraySpec, chain: Chain, name: str, first: int, count: int) -> str:
        settings, resources = self.settings, spec.resources
        # Without a folder of its own: Slurm makes none, and a script that is submitted by hand would lose its log.
        logs = f"{settings.log_folder}/{name}-%a.log" if settings.log_folder else f"{name}-%a.log"
        partition = (settings.gpu_partition if resources.gpus else None) or settings.partition
        parallel = f"%{spec.parallel}" if spec.parallel else ""
        lines = [
            f"--job-name={spec.name}",
            f"--array=0-{count - 1}{parallel}",
            f"--time={-(-spec.time_limit_s // 60)}",
            f"--signal=B:USR1@{settings.warn_s}",
            "--requeue",
            "--open-mode=append",
            f"--output={logs}",
            "--ntasks=1",
            f"--cpus-per-task={resources.cpus}",
            f"--mem={resources.memory >> 20}M",
            *([f"--partition={partition}"] if partition else []),
            *([f"--account={settings.account}"] if settings.account else []),
            *self._gpus(resources.gpus),
            *settings.options,
        ]
        variables = {**self.variables(spec, chain), "INKBATCH_ARRAY_COUNT": str(spec.shards)}
        del variables[DEADLINE_VARIABLE]  # --signal does it, with Slurm's own clock
        rows = ["#!/bin/bash", *(f"#SBATCH {line}" for line in lines), "set -eu"]
        rows += [f"export {key}={shlex.quote(value)}" for key, value in variables.items()]
        offset = f"{first} + " if first else ""
        rows += [f"export INKBATCH_ARRAY_INDEX=$(({offset}SLURM_ARRAY_TASK_ID))"]
        rows += ["export INKBATCH_ATTEMPT=$((${SLURM_RESTART_COUNT:-0} + 1))"]
        rows += ['export INKBATCH_JOB_ID="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"', *settings.setup]
        command = shlex.join([*self._program(spec, chain), *spec.command])
        wrapper = WRAPPER.format(restarts=spec.attempts - 1, command=command)
        return "\n".join(rows) + "\n\n" + wrapper

    def _gpus(self, gpus: int) -> list[str]:
        if not gpus:
            return []
        kind = f"{self.settings.gpu_type}:" if self.settings.gpu_type else ""
        gres = self.settings.gpu_request == "gres"
        return [f"--gres=gpu:{kind}{gpus}" if gres else f"--gpus-per-task={kind}{gpus}"]

    def _program(self, spec: ArraySpec, chain: Chain) -> list[str]:
        settings = self.settings
        places = dict.fromkeys([*chain.local_places, *settings.mounts])
        if settings.container == "none":
            return list(settings.program)
        image = settings.image or "inkbatch.sif"
        binds = ",".join(f"{place}:{place}" for place in places)
        if settings.container == "apptainer":
            words = ["apptainer", "exec", "--no-privs", *(["--nv"] if spec.resources.gpus else [])]
            return [*words, *(["--bind", binds] if binds else []), image, "inkbatch"]
        mounts = [f"--container-mounts={binds}"] if binds else []
        return ["srun", "--ntasks=1", f"--container-image={image}", *mounts, "--no-container-entrypoint", "inkbatch"]


def _part_name(job: str, part: int) -> str:
    """Name a part of an array that was split; ``+`` is in no prediction's name."""
    return job if part == 0 else f"{job}+{part + 1}"


def _variable(number: int, spec: ArraySpec) -> str:
    """Name the shell variable for the id of a job of the chain."""
    return re.sub(r"\W", "_", spec.kind if spec.kind == spec.job else f"{spec.kind}_{number}")


def _tasks_in(text: str) -> int:
    """Count the array tasks of an ``ArrayTaskId`` such as ``3``, ``0-7``, ``1,3-5%2``."""
    total = 0
    for part in text.split("%")[0].split(","):
        first, _, last = part.partition("-")
        last = last.split(":")[0]
        total += int(last) - int(first) + 1 if last.isdecimal() and first.isdecimal() else 1
    return total
