#!/usr/bin/env bash
# Build the image from the Dockerfile, with the first engine that answers: docker, podman, buildah.
#
#   docker/build.sh              the work of `make image`; settings come from the environment:
#   IMAGE=inkbatch:latest           name of the image
#   FLAVOUR=locked               CUDA flavour of torch: locked, or one with a requirements/runtime-FLAVOUR.lock
#   BASE_IMAGE=  BUILD_IMAGE=    base images; with buildah alone, a Debian base is made where none is named
#   ENGINE_IMAGE=                docker, podman or buildah instead of the first that answers
set -euo pipefail
cd "$(dirname "$0")/.."

IMAGE=${IMAGE:-inkbatch:latest}
FLAVOUR=${FLAVOUR:-locked}

fail() { echo "image: $1" >&2; exit 64; }

engine=${ENGINE_IMAGE:-}
if [ -z "$engine" ]; then
  if docker info --format '{{.ServerVersion}}' > /dev/null 2>&1; then engine=docker
  elif command -v buildah > /dev/null; then engine=buildah
  elif command -v podman > /dev/null; then engine=podman
  else fail "no docker engine answers, and neither buildah nor podman is here; apt-get install buildah debootstrap"
  fi
fi

# The oldest NVIDIA driver per CUDA major version, as NVIDIA's compatibility table has it (docs/image.md).
case "$FLAVOUR" in
  locked | cu13*) oldest_driver=580 ;;
  cu12*) oldest_driver=525.60.13 ;;
  cpu) oldest_driver=none ;;
  *) fail "flavour $FLAVOUR: no oldest driver is known for it; wanted locked, cpu, cu12… or cu13…" ;;
esac
[ "$FLAVOUR" = locked ] || [ -f "requirements/runtime-$FLAVOUR.lock" ] ||
  fail "flavour $FLAVOUR: there is no requirements/runtime-$FLAVOUR.lock; make it with: make lock-flavour FLAVOUR=$FLAVOUR"

if [ "$engine" = buildah ] && [ -z "${BASE_IMAGE:-}" ]; then
  docker/debian-base.sh
  BASE_IMAGE=localhost/inkbatch-debian:base
  BUILD_IMAGE=localhost/inkbatch-debian:build
fi

git_here() { git -c safe.directory='*' "$@" 2> /dev/null; }
revision=$(git_here rev-parse HEAD || echo unknown)
[ -z "$(git_here status --porcelain || true)" ] || revision="$revision-changed"
arguments=(
  --build-arg "TORCH_FLAVOUR=$FLAVOUR"
  --build-arg "OLDEST_DRIVER=$oldest_driver"
  --build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' inkbatch/__init__.py)"
  --build-arg "REVISION=$revision"
  --build-arg "CREATED=$(git_here log -1 --format=%cI || echo unknown)"
  --build-arg "SOURCE=$(git_here config --get remote.origin.url | sed 's#//[^/@]*@#//#' || echo unknown)"
)
[ -z "${BASE_IMAGE:-}" ] || arguments+=(--build-arg "BASE_IMAGE=$BASE_IMAGE" --build-arg "BUILD_IMAGE=${BUILD_IMAGE:-$BASE_IMAGE}")
case "${BASE_IMAGE:-}" in *@sha256:*) arguments+=(--build-arg "BASE_DIGEST=${BASE_IMAGE#*@}") ;; esac
# Certificates of a proxy in between: a secret of the build, in no layer.
if [ -n "${SSL_CERT_FILE:-}" ] && [ -f "$SSL_CERT_FILE" ]; then arguments+=(--secret "id=ca,src=$SSL_CERT_FILE"); fi

echo "image: $engine builds $IMAGE, torch flavour $FLAVOUR (NVIDIA driver $oldest_driver or newer)"
case "$engine" in
  docker) DOCKER_BUILDKIT=1 docker build "${arguments[@]}" --tag "$IMAGE" . ;;
  podman) podman build --layers "${arguments[@]}" --tag "$IMAGE" . ;;
  buildah)
    made_for=$(sha256sum Dockerfile | cut -c1-16)
    buildah build --isolation chroot --network host --layers --build-arg "MADE_FOR=$made_for" "${arguments[@]}" \
      --tag "$IMAGE" . ;;
  *) fail "engine $engine: wanted docker, podman or buildah" ;;
esac
