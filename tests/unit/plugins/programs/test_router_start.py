# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a process of the router is started: smg's arguments, and which keys are where."""

from __future__ import annotations

import json
import stat
import sys

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.programs import router as program
from ansible_collections.gpunode.llm.plugins.plugin_utils.fleet import router

LAUNCH = router.plan({})["launch"]


def options_of(words):
    """smg's arguments as it reads them: a flag, or a name with its value."""
    found, names = {}, [at for at, word in enumerate(words) if word.startswith("--")]
    for at, after in zip(names, [*names[1:], len(words)], strict=True):
        found.setdefault(words[at], []).append(words[at + 1 : after])
    return found


@pytest.mark.parametrize(("number", "port", "metrics"), [(0, "30000", "29000"), (1, "30001", "29001")])
def test_each_process_listens_on_loopback_alone(number, port, metrics):
    options = options_of(program.arguments(LAUNCH, number, "engines", "control", {}))
    assert (options["--host"], options["--port"]) == ([["127.0.0.1"]], [[port]])
    assert (options["--prometheus-host"], options["--prometheus-port"]) == ([["127.0.0.1"]], [[metrics]])


def test_the_engines_key_does_not_open_the_control_surface():
    options = options_of(program.arguments(LAUNCH, 0, "engines", "control", {}))
    assert options["--api-key"] == [["engines"]]
    assert options["--control-plane-api-keys"] == [["gpunode:gpunode:admin:control"]]
    assert "--api-key" not in options_of(program.arguments(LAUNCH, 0, "", "control", {}))


def test_a_worker_that_is_down_is_not_forgotten():
    """smg would not know its model any more, and answer 404."""
    assert "--no-remove-unhealthy-workers" in options_of(program.arguments(LAUNCH, 0, "", "control", {}))


def test_traces_are_sent_where_a_collector_is_named():
    assert "--enable-trace" not in program.arguments(LAUNCH, 0, "", "control", {})
    launch = router.plan({"otlp_endpoint": "10.0.0.5:4317"})["launch"]
    options = options_of(program.arguments(launch, 0, "", "control", {}))
    assert (options["--enable-trace"], options["--otlp-traces-endpoint"]) == ([[]], [["10.0.0.5:4317"]])
    (finding,) = router.plan({"otlp_endpoint": "http://10.0.0.5:4317"})["findings"]
    assert finding == "router_otlp_endpoint must be HOST:PORT of a collector, not 'http://10.0.0.5:4317'."


def test_other_names_of_models_are_given_one_by_one():
    options = options_of(program.arguments(LAUNCH, 0, "", "control", {"b": "org/b", "a": "org/a"}))
    assert options["--model-alias"] == [["a=org/a"], ["b=org/b"]]


def test_a_start_reads_the_files_and_makes_a_key_for_root_alone(tmp_path, monkeypatch):
    names = tmp_path / "aliases.json"
    (tmp_path / "settings.json").write_text(json.dumps({**LAUNCH, "aliases": str(names)}))
    names.write_text('{"a": "org/a"}')
    (tmp_path / "key").write_text("engines\n")
    monkeypatch.setattr(sys, "argv", ["router.py"])
    started = []
    argv = [
        f"--settings={tmp_path}/settings.json",
        "--number=1",
        f"--key={tmp_path}/key",
        f"--control-key={tmp_path}/own",
    ]
    program.main(argv, lambda: lambda: started.append(list(sys.argv)))
    (words,) = started
    assert words[:2] == ["smg", "launch"]
    options = options_of(words[2:])
    assert options["--api-key"] == [["engines"]]
    assert options["--model-alias"] == [["a=org/a"]]
    own = tmp_path / "own"
    assert options["--control-plane-api-keys"] == [[f"gpunode:gpunode:admin:{own.read_text()}"]]
    assert (len(own.read_text()), stat.S_IMODE(own.stat().st_mode)) == (64, 0o600)


def test_each_start_has_another_key(tmp_path):
    assert program.control_key(str(tmp_path / "key")) != program.control_key(str(tmp_path / "key"))


def test_without_a_file_there_are_no_other_names(tmp_path):
    assert program.aliases(str(tmp_path / "none.json")) == {}


def test_smg_is_imported_only_when_it_is_started(monkeypatch):
    """Its package is in the router's virtual environment alone."""

    class Cli:
        main = staticmethod(lambda: None)

    monkeypatch.setitem(sys.modules, "smg", Cli())
    monkeypatch.setitem(sys.modules, "smg.cli", Cli())
    assert program.start() is Cli.main
