#!/bin/bash
# Submits this chain by hand; run it in the folder of these files.
set -eu
prepare="$(sbatch --parsable prepare.sbatch)"; prepare="${prepare%%;*}"
infer_2="$(sbatch --parsable --dependency=afterok:${prepare} --kill-on-invalid-dep=yes infer.letters.sbatch)"; infer_2="${infer_2%%;*}"
infer_3="$(sbatch --parsable --dependency=afterok:${prepare} --kill-on-invalid-dep=yes infer.i3d.sbatch)"; infer_3="${infer_3%%;*}"
ensemble="$(sbatch --parsable --dependency=afterok:${infer_2}:${infer_3} --kill-on-invalid-dep=yes ensemble.sbatch)"; ensemble="${ensemble%%;*}"
report="$(sbatch --parsable --dependency=afterok:${ensemble} --kill-on-invalid-dep=yes report.sbatch)"; report="${report%%;*}"
