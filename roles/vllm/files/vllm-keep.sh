#!/bin/sh
# Keep what a unit was started from, now that it answers: the playbook returns to it when something newer does not. And end
# what stood in for it.
#
#   vllm-keep.sh STARTED_FROM KEPT CONTAINER
#
# STARTED_FROM is the folder in which the unit put its files at its start; KEPT takes its place as a whole or not at all.
set -eu
umask 077
started_from=$1 kept=$2 container=$3
mkdir -p "${kept%/*}"
rm -rf "$kept.new" "$kept.old"
cp -a "$started_from" "$kept.new"
# A tag may stand for another image by the time this is returned to.
docker container inspect --format='{{.Image}}' "$container" >"$kept.new/image"
[ ! -e "$kept" ] || mv "$kept" "$kept.old"
mv "$kept.new" "$kept"
rm -rf "$kept.old"
systemctl --no-block stop "$container-beside.service" 2>/dev/null || true
