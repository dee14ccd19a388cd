"""Share of a job that this process does: shard i of n, from the command line or the scheduler's own variables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from inkbatch.errors import ConfigError

# Of an array that was split because its scheduler takes no larger one: the first shard of this part, and all shards.
ARRAY_OFFSET, ARRAY_TOTAL = "INKBATCH_ARRAY_OFFSET", "INKBATCH_ARRAY_TOTAL"

Item = TypeVar("Item")


@dataclass(frozen=True)
class ShardSpec:
    """Shard `index` of `count`: the units ``units[index::count]``."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(f"shard {self.index}/{self.count}: expected 0 <= index < count; the first shard is 0")

    @staticmethod
    def parse(text: str) -> ShardSpec:
        """Read ``i/n``, counting from 0.

        Raises:
            ConfigError: Anything else.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal()):
            raise ConfigError(f"shard {text!r}: expected i/n counting from 0, for example 0/4")
        return ShardSpec(int(index), int(count))

    def select(self, items: Sequence[Item]) -> list[Item]:
        """Select the items of this shard."""
        return list(items[self.index :: self.count])

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True)
class TaskIdentity:
    """Identity of this process according to the scheduler.

    Attributes:
        source: ``inkbatch``, ``aws-batch``, ``slurm``, ``kubernetes`` or ``single``.
        shard: The array task as a shard.
        attempt: Counting from 1.
        job_id: The scheduler's name for the job, or an empty text.
    """

    source: str
    shard: ShardSpec
    attempt: int = 1
    job_id: str = ""


@dataclass(frozen=True)
class _Scheduler:
    source: str
    index: str
    count: str
    attempt: str
    job_id: str
    attempt_offset: int = 0


# Variable names as the schedulers document them; the first whose index variable is set wins.
_SCHEDULERS = (
    _Scheduler("inkbatch", "INKBATCH_ARRAY_INDEX", "INKBATCH_ARRAY_COUNT", "INKBATCH_ATTEMPT", "INKBATCH_JOB_ID"),
    _Scheduler(
        "aws-batch",
        "AWS_BATCH_JOB_ARRAY_INDEX",
        "AWS_BATCH_JOB_ARRAY_SIZE",
        "AWS_BATCH_JOB_ATTEMPT",
        "AWS_BATCH_JOB_ID",
    ),
    _Scheduler(
        "slurm", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID", 1
    ),
    _Scheduler("kubernetes", "JOB_COMPLETION_INDEX", "INKBATCH_ARRAY_COUNT", "INKBATCH_ATTEMPT", "HOSTNAME"),
)


def task_identity(environment: Mapping[str, str] | None = None) -> TaskIdentity:
    """Read the identity of this array task; a process outside any array is shard 0 of 1.

    Raises:
        ConfigError: An index without a count, or a value that is not a number in range.
    """
    env = os.environ if environment is None else environment
    for scheduler in _SCHEDULERS:
        if scheduler.index not in env:
            continue
        if scheduler.count not in env:
            raise ConfigError(
                f"{scheduler.index} is set, {scheduler.count} is not; set it to the number of array tasks"
            )
        index = _number(env, scheduler.index) + _number(env, ARRAY_OFFSET, 0)
        count = _number(env, ARRAY_TOTAL, _number(env, scheduler.count))
        attempt = _number(env, scheduler.attempt, 1 - scheduler.attempt_offset) + scheduler.attempt_offset
        return TaskIdentity(scheduler.source, ShardSpec(index, count), attempt, env.get(scheduler.job_id, ""))
    offset, total = _number(env, ARRAY_OFFSET, 0), _number(env, ARRAY_TOTAL, 1)
    for scheduler in _SCHEDULERS:  # a task outside any array still has an attempt and an id
        if env.get(scheduler.attempt):
            attempt = _number(env, scheduler.attempt) + scheduler.attempt_offset
            return TaskIdentity(scheduler.source, ShardSpec(offset, total), attempt, env.get(scheduler.job_id, ""))
    return TaskIdentity("single", ShardSpec(offset, total))


def _number(env: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = env.get(name, "")
    if not text and default is not None:
        return default
    if not text.isdecimal():
        raise ConfigError(f"{name}={text!r}: expected a whole number")
    return int(text)
