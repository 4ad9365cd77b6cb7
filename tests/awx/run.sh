#!/bin/sh
# What AWX would do, without an AWX: its modules against a small API, its jobs by ansible-runner, its image's context.
set -eu
cd "$(dirname "$0")/../.."
tests/venv.sh .venv-awx tests/awx/requirements.txt
# The awx.awx collection comes in PyPI's `ansible` package, of which the rest is not needed.
ansible=12.3.0
folder=${GPUNODE_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gpunode-lab}/awx-collection-$ansible
if [ ! -e "$folder/complete" ]; then
  rm -rf "$folder"
  .venv-awx/bin/pip download -q --disable-pip-version-check --no-deps -d "$folder" "ansible==$ansible"
  python3 -c 'import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    wheel.extractall(sys.argv[2], [name for name in wheel.namelist() if name.startswith("ansible_collections/awx/")])
' "$folder"/ansible-*.whl "$folder"
  rm "$folder"/ansible-*.whl
  touch "$folder/complete"
fi
PATH="$PWD/.venv-awx/bin:$PATH" ANSIBLE_COLLECTIONS_PATH="$PWD/collections:$folder" exec .venv-awx/bin/pytest tests/awx "$@"
