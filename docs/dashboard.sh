#!/bin/sh
# The Grafana dashboard, made by Grafana's own SDK from catalog/monitoring.yml; with --check only compared.
set -eu
cd "$(dirname "$0")/.."
tests/venv.sh .venv-dashboard docs/dashboard-requirements.txt
exec .venv-dashboard/bin/python docs/dashboard.py "$@"
