"""Shards: how a process learns which one it is."""

from __future__ import annotations

import pytest

from inkbatch.errors import ConfigError
from inkbatch.run.identity import ShardSpec, task_identity


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_shards_share_out_every_item_once(count):
    items = list(range(23))
    shares = [ShardSpec(i, count).select(items) for i in range(count)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["", "1", "4/4", "-1/4", "a/b", "1/0", "1/4/2"])
def test_a_bad_shard_is_refused(text):
    with pytest.raises(ConfigError, match="shard"):
        ShardSpec.parse(text)


@pytest.mark.parametrize(
    ("env", "source", "shard", "attempt"),
    [
        ({}, "single", "0/1", 1),
        ({"INKBATCH_ARRAY_INDEX": "2", "INKBATCH_ARRAY_COUNT": "3", "INKBATCH_ATTEMPT": "4"}, "inkbatch", "2/3", 4),
        (
            {"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "8", "AWS_BATCH_JOB_ATTEMPT": "2"},
            "aws-batch",
            "1/8",
            2,
        ),
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "4"}, "slurm", "0/4", 1),
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_RESTART_COUNT": "1"}, "slurm", "0/4", 2),
        ({"JOB_COMPLETION_INDEX": "3", "INKBATCH_ARRAY_COUNT": "4"}, "kubernetes", "3/4", 1),
        (
            {
                "INKBATCH_ARRAY_INDEX": "0",
                "INKBATCH_ARRAY_COUNT": "2",
                "SLURM_ARRAY_TASK_ID": "7",
                "SLURM_ARRAY_TASK_COUNT": "8",
            },
            "inkbatch",
            "0/2",
            1,
        ),
    ],
)
def test_the_schedulers_own_variables_are_read(env, source, shard, attempt):
    identity = task_identity(env)
    assert (identity.source, str(identity.shard), identity.attempt) == (source, shard, attempt)


@pytest.mark.parametrize(
    "env",
    [
        {"AWS_BATCH_JOB_ARRAY_INDEX": "1"},
        {"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_COUNT": "4"},
        {"INKBATCH_ARRAY_INDEX": "4", "INKBATCH_ARRAY_COUNT": "4"},
    ],
)
def test_half_an_identity_is_refused(env):
    with pytest.raises(ConfigError):
        task_identity(env)


def test_a_part_of_a_split_array_counts_on():
    env = {"AWS_BATCH_JOB_ARRAY_INDEX": "3", "AWS_BATCH_JOB_ARRAY_SIZE": "5000", "AWS_BATCH_JOB_ID": "id:3"}
    split = {**env, "INKBATCH_ARRAY_OFFSET": "20000", "INKBATCH_ARRAY_TOTAL": "25000"}
    assert str(task_identity(split).shard) == "20003/25000"


def test_a_last_part_of_one_task_is_no_array_and_still_knows_its_shard():
    env = {"AWS_BATCH_JOB_ID": "id", "AWS_BATCH_JOB_ATTEMPT": "2"}
    identity = task_identity({**env, "INKBATCH_ARRAY_OFFSET": "10000", "INKBATCH_ARRAY_TOTAL": "10001"})
    assert (str(identity.shard), identity.source, identity.attempt) == ("10000/10001", "aws-batch", 2)
    assert str(task_identity(env).shard) == "0/1"
