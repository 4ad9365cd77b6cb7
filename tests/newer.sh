#!/bin/sh
# Run a command with the newest ansible-core that there is a Python for, from a venv of its own: `newer.sh pytest tests/unit`.
# Ends with 77 where this machine has no newer Python than the one that `make` uses.
set -eu
checkout=$(cd "$(dirname "$0")/.." && pwd)
newer=
for python in python3.13 python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[32]*/bin/python3; do
  # pyenv's shims are there for versions that are not chosen, too.
  if "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
    newer=$python
  fi
done
[ -n "$newer" ] || { echo "skipped: no Python 3.12 or newer here" >&2; exit 77; }
cd "$checkout"
PYTHON=$newer tests/venv.sh .venv-newer
PATH=$checkout/.venv-newer/bin:$PATH
export PATH
ansible --version | sed -n '1p; s/^  python version = /python /p' >&2
exec "$@"
