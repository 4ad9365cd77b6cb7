# `make help` lists what there is. Everything runs in a venv of its own, kept by what is in requirements-dev.txt;
# PYTHON=python3.13 makes it with that Python, and so with the newer ansible-core.
SHELL := /bin/bash
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
LAB := tests/lab/lab
export PYTHON
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help demo demo-down test test-all lint unit sanity newer engine molecule bench bench-light-nodes bench-planner bench-keys bench-router bench-fleet kill-anywhere docs dashboard surveys site awx build release venv clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: venv  ## a fresh node on this machine, site.yml over ssh, and the model's answer
	@tests/demo.sh

demo-down:  ## take the demo's node and the lab away; what was built is kept
	@$(LAB) down

test: venv  ## lint, unit tests, and Molecule's default scenario on a fresh node
	@$(BIN)/python tests/run.py

test-all: venv  ## `make test`, and everything that takes longer
	@$(BIN)/python tests/run.py --all

lint: venv  ## yamllint, ansible-lint, ruff, mypy
	@$(BIN)/python tests/run.py --only lint

unit: venv  ## the unit tests
	@$(BIN)/python tests/run.py --only unit

sanity: venv  ## ansible-test's sanity, with nothing ignored, and units
	@$(BIN)/python tests/run.py --only sanity

newer: venv  ## unit tests, sanity and the artefact on the newest ansible-core that there is a Python for
	@$(BIN)/python tests/run.py --only newer

awx: venv  ## what AWX is given and runs, by its own modules, ansible-runner and ansible-builder
	@$(BIN)/python tests/run.py --only awx

engine: venv  ## every configuration that is rendered, through vLLM's own parser and engine configuration
	@$(BIN)/python tests/run.py --only engine

molecule: venv  ## Molecule's default scenario
	@$(BIN)/python tests/run.py --only molecule

kill-anywhere: venv  ## the play killed before a task and run again; KILL_POINTS=all for every state that there is
	@$(BIN)/python tests/run.py --only kill-anywhere

bench: venv  ## what site.yml costs, first and with nothing to do, against a one-task play
	@$(BIN)/python tests/bench/site.py

bench-light-nodes: venv  ## what the roles up to the weights cost over 1, 8 and 24 nodes
	@$(BIN)/python tests/bench/light_nodes.py

bench-planner: venv  ## what planning costs
	@$(BIN)/python tests/bench/planner.py

bench-keys: venv  ## what a thousand keys cost at the gateway; needs nginx, a minute
	@$(BIN)/python tests/bench/keys.py

bench-router: venv  ## what the router and the gateway add to a stream, on loopback
	@$(BIN)/python tests/bench/router.py

bench-fleet: venv  ## the router before 64 engines that are stubs: changes, a death, 2,000 streams at once
	@$(BIN)/python tests/bench/fleet.py

surveys: venv  ## write awx/surveys.yml again
	@$(BIN)/python awx/make_surveys.py

docs: venv  ## write the pages that are made from data again
	@$(BIN)/python docs/models_and_gpus.py
	@$(BIN)/python docs/monitoring.py
	@$(BIN)/python docs/results.py
	@$(BIN)/python docs/settings.py
	@$(BIN)/python docs/settings_schema.py
	@$(BIN)/python docs/troubleshooting.py

dashboard: venv  ## write the Grafana dashboard again, by Grafana's own SDK
	@docs/dashboard.sh

site: venv  ## the documentation as a site: docs/_build/index.html
	@docs/site.sh

build: venv  ## the artefact, gpunode-llm-VERSION.tar.gz
	@$(BIN)/ansible-galaxy collection build --force

release: venv  ## cut the version that galaxy.yml names: CHANGELOG.md from the fragments, a commit, a tag
	@$(BIN)/antsibull-changelog release
	@git add CHANGELOG.md changelogs
	@version=$$(awk '/^version:/{print $$2}' galaxy.yml) && git commit -qm "Release $$version" && git tag "$$version" && \
		echo "git push origin main $$version"

venv:  ## the tools, made once
	@tests/venv.sh $(VENV)

clean:  ## drop the venv's link and what tests left
	@rm -rf $(VENV) .venv-docs .venv-site .venv-awx .venv-newer docs/_build docs/_planner docs/_pyodide docs/reference .pytest_cache .mypy_cache .ruff_cache .hypothesis .ansible
