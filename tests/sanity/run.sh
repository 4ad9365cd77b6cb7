#!/bin/sh
# ansible-test on what git tracks, in a tree of the name that it asks for: `run.sh sanity`, `run.sh units` (of the plugins: the
# other tests are about a checkout with its tools), and what follows goes to ansible-test. It runs with the ansible-core of the
# venv that comes first on PATH.
set -eu
what=$1
shift
checkout=$(cd "$(dirname "$0")/../.." && pwd)
python=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
cache=${GPUNODE_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gpunode-lab}
# Its venvs are worth keeping, in a home of their own.
home=$cache/ansible-test-$(python -c 'import ansible.release; print(ansible.release.__version__)')
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

if ! ls "$home"/.ansible/test/cache/get_pip_*.py >/dev/null 2>&1; then
  version=$(python -c 'from types import SimpleNamespace as given
from ansible_test._internal.python_requirements import get_venv_packages
print(get_venv_packages(given(version="'"$python"'"))["pip"])')
  mkdir -p "$home/.ansible/test/cache" "$home/.config"
  [ ! -d "$HOME/.config/pip" ] || ln -s "$HOME/.config/pip" "$home/.config/pip"
  pip download -q --disable-pip-version-check --no-deps -d "$home/.ansible/test/cache" "pip==$version"
  cp "$checkout/tests/sanity/get_pip.py" "$home/.ansible/test/cache/get_pip_$(echo "$version" | tr . _).py"
fi

# The checkout's link to itself is no part of the collection. The lab's stand-ins are programs of a node, which sanity would
# read as the collection's; the unit tests run them.
[ "$what" = sanity ] && without=':!tests/lab/stand-ins' || without=
mkdir -p "$tree/ansible_collections/gpunode/llm"
git -C "$checkout" ls-files -z --cached --others --exclude-standard -- . ':!collections' ${without:+"$without"} |
  (cd "$checkout" && tar --ignore-failed-read --null -T - -cf -) 2>/dev/null | tar -xf - -C "$tree/ansible_collections/gpunode/llm"
cd "$tree/ansible_collections/gpunode/llm"
git init -q && git add -A
unset ANSIBLE_CONFIG
# Sanity makes a venv for each of its tests; the unit tests get one here.
[ "$what" = sanity ] && where=--local || where="--venv --requirements tests/unit/plugins/"
HOME=$home ansible-test "$what" $where --python "$python" "$@"
