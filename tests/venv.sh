#!/bin/sh
# Make a venv once for each state of a list of requirements, $2, outside the checkout, and link it as $1: a second clone has it
# at once. PYTHON names another Python than the oldest that will do.
set -eu
link=$1
list=${2:-requirements-dev.txt}
cache=${GPUNODE_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gpunode-lab}
for python in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
done
if [ -n "${PYTHON:-}" ] && ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "PYTHON=$PYTHON does not run, or is older than 3.11" >&2
  exit 1
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "[venv] apt-get install python3 python3-venv"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv >/dev/null
    python=python3
  else
    echo "needs Python 3.11 or newer with its venv module" >&2
    exit 1
  fi
fi
sum=$( ("$python" -V; cat "$list") | sha256sum | cut -c1-12)
venv=$cache/venv-$sum
if [ ! -e "$venv/complete" ]; then
  echo "[venv] $venv: the tools of $list, about a minute …"
  rm -rf "$venv"
  mkdir -p "$cache"
  "$python" -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -r "$list"
  touch "$venv/complete"
fi
[ "$(readlink "$link" 2>/dev/null)" = "$venv" ] || { rm -rf "$link"; ln -s "$venv" "$link"; }
