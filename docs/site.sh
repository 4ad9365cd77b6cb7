#!/bin/sh
# The documentation as a site: the guides beside this file, a page for each plugin and role from their own documentation,
# and the planner as a page that runs in a browser.
set -eu
cd "$(dirname "$0")/.."
tests/venv.sh .venv-docs docs/requirements.txt
# antsibull-docs asks the ansible-doc on the PATH, where `make` puts the tools' own.
export PATH="$PWD/.venv/bin:$PATH" ANSIBLE_COLLECTIONS_PATH="$PWD/collections"
.venv-docs/bin/antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .
rm -rf docs/reference docs/_build
mkdir docs/reference
.venv-docs/bin/antsibull-docs collection --use-current --squash-hierarchy --fail-on-error --dest-dir docs/reference gpunode.llm
.venv-docs/bin/python docs/reference_index.py
docs/planner/pyodide.sh docs/_pyodide
.venv/bin/python docs/planner/make.py docs/_pyodide
.venv-docs/bin/sphinx-build -q -W --keep-going -b html docs docs/_build
echo "docs/_build/index.html"
