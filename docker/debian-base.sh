#!/usr/bin/env bash
# Make a base image for machines that reach no image registry: Debian with its Python 3.11, by debootstrap and buildah.
#
#   docker/debian-base.sh        needs root; makes inkbatch-debian:base (what ships) and :build (with venv and pip)
set -euo pipefail

suite=bookworm
for tool in buildah debootstrap; do
  command -v "$tool" > /dev/null || { echo "image base: no $tool here; apt-get install buildah debootstrap" >&2; exit 64; }
done
[ "$(id -u)" = 0 ] || { echo "image base: debootstrap needs root; run it with sudo" >&2; exit 64; }

if buildah inspect --type image inkbatch-debian:base > /dev/null 2>&1 &&
   buildah inspect --type image inkbatch-debian:build > /dev/null 2>&1; then
  echo "image base: inkbatch-debian:base and :build are here already"
  exit 0
fi

folder=$(mktemp -d /var/tmp/inkbatch-base.XXXXXX)
containers=()
clean_up() {
  for container in "${containers[@]}"; do buildah rm "$container" > /dev/null 2>&1 || true; done
  rm -rf "$folder"
}
trap clean_up EXIT

echo "image base: fetching Debian $suite (about a minute)"
debootstrap --variant=minbase --include=python3,ca-certificates "$suite" "$folder/root" > "$folder/log" 2>&1 ||
  { tail -n 20 "$folder/log" >&2; echo "image base: debootstrap failed, see above" >&2; exit 75; }
rm -rf "$folder"/root/var/cache/apt/archives/*.deb "$folder"/root/var/lib/apt/lists/*

base=$(buildah from scratch); containers+=("$base")
buildah add --quiet "$base" "$folder/root" / > /dev/null
buildah commit --quiet "$base" inkbatch-debian:base > /dev/null

build=$(buildah from --pull-never inkbatch-debian:base); containers+=("$build")
buildah run --isolation chroot "$build" -- sh -c '
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv \
    > /dev/null && rm -rf /var/lib/apt/lists/*'
buildah commit --quiet "$build" inkbatch-debian:build > /dev/null
echo "image base: made inkbatch-debian:base and :build"
