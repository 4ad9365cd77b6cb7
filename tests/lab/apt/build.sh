#!/bin/sh
# The lab's signed apt repositories, laid out as Docker's and NVIDIA's own.
#
#   build.sh OUT     as root on Debian 12 or 13 with apt-utils, dpkg-dev and gnupg; ends with a tree to serve over HTTP:
#
#   OUT/docker/linux/debian/gpg, dists/<codename>/stable/…      like download.docker.com
#   OUT/nvidia/libnvidia-container/gpgkey, stable/deb/<arch>/   like nvidia.github.io
#   OUT/swapped/…        the same two repositories, signed by a stranger whose key lies where theirs should
#   OUT/vars.json        what a node's variables must be, fingerprints included
#
# Docker's packages hold Debian's own binaries under Docker's names, so a node runs a real engine; NVIDIA's are stand-ins.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
stand_ins=$here/../stand-ins
[ $# -eq 1 ] || { sed -n '4,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
arch=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
codenames="bookworm trixie"

say() { echo "apt lab: $*" >&2; }

. "$here/keys.sh"
. "$here/docker.sh"
. "$here/nvidia.sh"
. "$here/publish.sh"

rm -rf "$out/docker" "$out/nvidia" "$out/swapped"
make_keys
fetch_engine
for codename in $codenames; do pack_docker "$codename"; done
for version in 1.19.1-1 1.20.0-1; do pack_nvidia "$version"; done
publish_docker "$out/docker/linux/debian" docker
publish_nvidia "$out/nvidia/libnvidia-container" nvidia
publish_swapped
write_vars
say "done: $(du -sh "$out" | cut -f1) in $out"
