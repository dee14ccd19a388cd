#!/usr/bin/env bash
# Test the image with a real container runtime: docker where its engine answers, else podman. The work of
# `make image-test`.
#
#   docker/image-test.sh PYTHON [pytest arguments]
#   IMAGE=inkbatch:latest           the image
#
# Podman also runs where there are no usable cgroups (inside another container, say): limits are then left out, and a
# half-mounted cgroup tree is hidden from it.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1
shift
export INKBATCH_TEST_IMAGE=${IMAGE:-inkbatch:latest}

if docker info --format '{{.ServerVersion}}' > /dev/null 2>&1; then
  export INKBATCH_TEST_ENGINE=docker
  exec "$python" -m pytest tests/image -m image "$@"
fi
command -v podman > /dev/null ||
  { echo "image-test: no docker engine answers and there is no podman; apt-get install podman crun" >&2; exit 64; }
export INKBATCH_TEST_ENGINE=podman

if podman run --rm --network none "$INKBATCH_TEST_IMAGE" --version > /dev/null 2>&1; then
  exec "$python" -m pytest tests/image -m image "$@"
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf '[containers]\ncgroups="disabled"\ndefault_ulimits=["nofile=1024:1024","nproc=4096:4096"]\n' > "$folder/containers.conf"
if [ -x /usr/lib/podman/netavark ]; then # compose's services find each other by name
  printf '[network]\nnetwork_backend="netavark"\n' >> "$folder/containers.conf"
fi
export CONTAINERS_CONF=$folder/containers.conf
unshare --mount sh -c '
  if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
  exec "$@"' sh "$python" -m pytest tests/image -m image "$@"
