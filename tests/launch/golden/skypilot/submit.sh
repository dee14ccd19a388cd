#!/bin/sh
# Submits this chain: every shard is a managed job of its own, which is recovered alone, and a job waits for those
# before it. Run it in the folder of these files; it ends when the last job has ended.
set -eu
launched=""
all_of_them() { for one in $launched; do wait "$one"; done; launched=""; }
sky jobs launch --yes --name inkbatch-prepare-20231005123336-0 --env INKBATCH_ARRAY_INDEX=0 prepare.sky.yaml &
launched="$launched $!"
sky jobs launch --yes --name inkbatch-prepare-20231005123336-1 --env INKBATCH_ARRAY_INDEX=1 prepare.sky.yaml &
launched="$launched $!"
sky jobs launch --yes --name inkbatch-prepare-20231005123336-2 --env INKBATCH_ARRAY_INDEX=2 prepare.sky.yaml &
launched="$launched $!"
all_of_them
sky jobs launch --yes --name inkbatch-infer-letters-20231005123336-0 --env INKBATCH_ARRAY_INDEX=0 infer.letters.sky.yaml &
launched="$launched $!"
sky jobs launch --yes --name inkbatch-infer-letters-20231005123336-1 --env INKBATCH_ARRAY_INDEX=1 infer.letters.sky.yaml &
launched="$launched $!"
sky jobs launch --yes --name inkbatch-infer-letters-20231005123336-2 --env INKBATCH_ARRAY_INDEX=2 infer.letters.sky.yaml &
launched="$launched $!"
sky jobs launch --yes --name inkbatch-infer-i3d-20231005123336-0 --env INKBATCH_ARRAY_INDEX=0 infer.i3d.sky.yaml &
launched="$launched $!"
sky jobs launch --yes --name inkbatch-infer-i3d-20231005123336-1 --env INKBATCH_ARRAY_INDEX=1 infer.i3d.sky.yaml &
launched="$launched $!"
sky jobs launch --yes --name inkbatch-infer-i3d-20231005123336-2 --env INKBATCH_ARRAY_INDEX=2 infer.i3d.sky.yaml &
launched="$launched $!"
all_of_them
sky jobs launch --yes --name inkbatch-ensemble-20231005123336-0 --env INKBATCH_ARRAY_INDEX=0 ensemble.sky.yaml &
launched="$launched $!"
all_of_them
sky jobs launch --yes --name inkbatch-report-20231005123336-0 --env INKBATCH_ARRAY_INDEX=0 report.sky.yaml &
launched="$launched $!"
all_of_them
