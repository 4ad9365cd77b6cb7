#!/bin/sh
# Build the collection, install it into an empty folder, and use it from there by its full name, far from the checkout.
set -eu
checkout=$(cd "$(dirname "$0")/.." && pwd)
away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT
unset ANSIBLE_CONFIG
export ANSIBLE_COLLECTIONS_PATH="$away/collections"
ansible-galaxy collection build --output-path "$away" "$checkout" >/dev/null
ansible-galaxy collection install --offline -p "$away/collections" "$away"/gpunode-llm-*.tar.gz >/dev/null
cd "$away"
tar -tzf gpunode-llm-*.tar.gz >files
if grep -E '^(\.|tests|molecule|collections|Makefile|.*\.pyc$)' files; then
  echo "the artefact holds what no user needs" >&2
  exit 1
fi
ansible-playbook gpunode.llm.plan -e model=70b -e gpus=8xH100
ansible-playbook -i localhost, --syntax-check gpunode.llm.site
