#!/bin/sh
# infer-20231005123336-20261121-120000-abcd: what the local engine runs, without its restarts.
set -eu

# prepare: 3 tasks of at most 5 attempts, code 75 is retried
INKBATCH_LAUNCH=infer-20231005123336-20261121-120000-abcd OMP_WAIT_POLICY=PASSIVE INKBATCH_ARRAY_INDEX=0 INKBATCH_ARRAY_COUNT=3 INKBATCH_ATTEMPT=1 INKBATCH_JOB_ID=infer-20231005123336-20261121-120000-abcd:prepare \
  inkbatch prepare 20231005123336 --root s3://bucket/ink --set memory=4GiB --set shard_px=1024 --set codec=lz4 --set source=s3://scans/20231005123336/layers --set depth_order=forward --set voxel_size_um=7.91 --log json &
INKBATCH_LAUNCH=infer-20231005123336-20261121-120000-abcd OMP_WAIT_POLICY=PASSIVE INKBATCH_ARRAY_INDEX=1 INKBATCH_ARRAY_COUNT=3 INKBATCH_ATTEMPT=1 INKBATCH_JOB_ID=infer-20231005123336-20261121-120000-abcd:prepare \
  inkbatch prepare 20231005123336 --root s3://bucket/ink --set memory=4GiB --set shard_px=1024 --set codec=lz4 --set source=s3://scans/20231005123336/layers --set depth_order=forward --set voxel_size_um=7.91 --log json &
INKBATCH_LAUNCH=infer-20231005123336-20261121-120000-abcd OMP_WAIT_POLICY=PASSIVE INKBATCH_ARRAY_INDEX=2 INKBATCH_ARRAY_COUNT=3 INKBATCH_ATTEMPT=1 INKBATCH_JOB_ID=infer-20231005123336-20261121-120000-abcd:prepare \
  inkbatch prepare 20231005123336 --root s3://bucket/ink --set memory=4GiB --set shard_px=1024 --set codec=lz4 --set source=s3://scans/20231005123336/layers --set depth_order=forward --set voxel_size_um=7.91 --log json &
wait

# infer.letters: 3 tasks of at most 5 attempts, code 75 is retried
INKBATCH_LAUNCH=infer-20231005123336-20261121-120000-abcd INKBATCH_REQUIRE_GPU=1 OMP_WAIT_POLICY=PASSIVE INKBATCH_ARRAY_INDEX=0 INKBATCH_ARRAY_COUNT=3 INKBATCH_ATTEMPT=1 INKBATCH_JOB_ID=infer-20231005123336-20261121-120000-abcd:infer.letters \
  inkbatch infer 20231005123336 --root s3://bucket/ink --bundle s3://bucket/ink/runs/letters/bundle --name letters --set device=auto --set precision=auto --set batch_tiles=0 --set stride_px=32 --log json &
INKBATCH_LAUNCH=infer-20231005123336-20261121-120000-abcd INKBATCH_REQUIRE_GPU=1 OMP_WAIT_POLICY=PASSIVE INKBATCH_ARRAY_INDEX=1 INKBATCH_ARRAY_COUNT=3 INKBATCH_ATTEMPT=1 INKBATCH_JOB_ID=infer-20231005123336-20261121-120000-abcd:infer.letters \
  inkbatch infer 20231005123336 --root s3://bucket/ink --bundle s3://bucket/ink/runs/letters/bundle --name letters --set device=auto --set precision=auto --set batch_tiles=0 --set stride_px=32 --log json &
INKBATCH_LAUNCH=infer-20231005123336-20261121-120000-abcd INKBATCH_REQUIRE_GPU=1 OMP_WAIT_POLICY=PASSIVE INKBATCH_ARRAY_INDEX=2 INKBATCH_ARRAY_COUNT=3 INKBATCH_ATTEMPT=1 INKBATCH_JOB_ID=infer-20231005123336-20261121-120000-abcd:infer.letters \
  inkbatch infer 20231005123336 --root s3://bucket/ink --bundle s3://bucket/ink/runs/letters/bundle --name letters --set device=auto --set precision=auto --set batch_tiles=0 --set stride_px=32 --log json &
wait

# infer.i3d: 3 tasks of at most 5 attempts, code 75 is retried
INKBATCH_LAUNCH=infer-20231005123336-20261121-120000-abcd INKBATCH_REQUIRE_GPU=1 OMP_WAIT_POLICY=PASSIVE INKBATCH_ARRAY_INDEX=0 INKBATCH_ARRAY_COUNT=3 INKBATCH_ATTEMPT=1 INKBATCH_JOB_ID=infer-20231005123336-20261121-120000-abcd:infer.i3d \
  inkbatch infer 20231005123336 --root s3://bucket/ink --bundle s3://bucket/ink/runs/i3d/bundle --name i3d --set device=auto --set precision=auto --set batch_tiles=0 --set stride_px=32 --log json &
INKBATCH_LAUNCH=infer-20231005123336-20261121-120000-abcd INKBATCH_REQUIRE_GPU=1 OMP_WAIT_POLICY=PASSIVE INKBATCH_ARRAY_INDEX=1 INKBATCH_ARRAY_COUNT=3 INKBATCH_ATTEMPT=1 INKBATCH_JOB_ID=infer-20231005123336-20261121-120000-abcd:infer.i3d \
  inkbatch infer 20231005123336 --root s3://bucket/ink --bundle s3://bucket/ink/runs/i3d/bundle --name i3d --set device=auto --set precision=auto --set batch_tiles=0 --set stride_px=32 --log json &
INKBATCH_LAUNCH=infer-20231005123336-20261121-120000-abcd INKBATCH_REQUIRE_GPU=1 OMP_WAIT_POLICY=PASSIVE INKBATCH_ARRAY_INDEX=2 INKBATCH_ARRAY_COUNT=3 INKBATCH_ATTEMPT=1 INKBATCH_JOB_ID=infer-20231005123336-20261121-120000-abcd:infer.i3d \
  inkbatch infer 20231005123336 --root s3://bucket/ink --bundle s3://bucket/ink/runs/i3d/bundle --name i3d --set device=auto --set precision=auto --set batch_tiles=0 --set stride_px=32 --log json &
wait

# ensemble: 1 tasks of at most 5 attempts, code 75 is retried
INKBATCH_LAUNCH=infer-20231005123336-20261121-120000-abcd OMP_WAIT_POLICY=PASSIVE INKBATCH_ARRAY_INDEX=0 INKBATCH_ARRAY_COUNT=1 INKBATCH_ATTEMPT=1 INKBATCH_JOB_ID=infer-20231005123336-20261121-120000-abcd:ensemble \
  inkbatch ensemble 20231005123336 --root s3://bucket/ink --prediction letters --prediction i3d --set method=mean --set disagreement=true --set unit_px=2048 --log json

# report: 1 tasks of at most 5 attempts, code 75 is retried
INKBATCH_LAUNCH=infer-20231005123336-20261121-120000-abcd OMP_WAIT_POLICY=PASSIVE INKBATCH_ARRAY_INDEX=0 INKBATCH_ARRAY_COUNT=1 INKBATCH_ATTEMPT=1 INKBATCH_JOB_ID=infer-20231005123336-20261121-120000-abcd:report \
  inkbatch report 20231005123336 --root s3://bucket/ink
