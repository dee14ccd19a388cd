#!/bin/bash
# Submits this chain by hand; run it in the folder of these files.
set -eu
prepare="$(sbatch --parsable prepare.sbatch)"; prepare="${prepare%%;*}"
infer="$(sbatch --parsable --dependency=afterok:${prepare} --kill-on-invalid-dep=yes infer.sbatch)"; infer="${infer%%;*}"
ensemble="$(sbatch --parsable --dependency=afterok:${infer} --kill-on-invalid-dep=yes ensemble.sbatch)"; ensemble="${ensemble%%;*}"
report="$(sbatch --parsable --dependency=afterok:${ensemble} --kill-on-invalid-dep=yes report.sbatch)"; report="${report%%;*}"
