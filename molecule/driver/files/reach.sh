#!/bin/bash
# ssh's way to a node of the lab whose port is another one after each restart: reach.sh NODE
set -eu
for _second in {1..60}; do
  address=$(docker port "gpunode-lab-node-$1" 22/tcp 2>/dev/null | head -n 1) && [ -n "$address" ] && break
  sleep 1
done
exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
cat <&3 &
cat >&3
kill %1 2>/dev/null
