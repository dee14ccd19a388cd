#!/bin/sh
# Submits this chain: each job when the ones before it are complete. Run it in the folder of these files.
set -eu
wait_for() {
  until kubectl wait --for=condition=complete --timeout=60s "$@"; do
    if kubectl wait --for=condition=failed --timeout=1s "$@"; then exit 1; fi
  done
}
kubectl apply -f prepare.k8s.yaml
wait_for job/inkbatch-prepare-20231005123336-abcd-1
kubectl apply -f infer.letters.k8s.yaml
kubectl apply -f infer.i3d.k8s.yaml
wait_for job/inkbatch-infer-letters-20231005123336-abcd-2
wait_for job/inkbatch-infer-i3d-20231005123336-abcd-3
kubectl apply -f ensemble.k8s.yaml
wait_for job/inkbatch-ensemble-20231005123336-abcd-4
kubectl apply -f report.k8s.yaml
