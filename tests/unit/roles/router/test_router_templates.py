# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role router writes: units that systemd reads, settings without keys, and a list that pip takes by hashes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpunode.llm.plugins.module_utils.instance import names
from ansible_collections.gpunode.llm.plugins.module_utils.programs import router as program

ROLE = Path(__file__).parents[4] / "roles" / "router"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
VARS = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
KEY = "sk-engines-" + "k" * 32


def trusted(value):
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def templar(**settings):
    given = {"router_engine_key": KEY, "role_path": str(ROLE), **settings}
    return Templar(loader=DataLoader(), variables={**DEFAULTS, **trusted(VARS), **given})


def value(name, **settings):
    return templar(**settings).template(trust_as_template("{{ " + name + " }}"))


def render(template, number=0, **settings):
    text = trust_as_template((ROLE / "templates" / template).read_text())
    process = value("__router_plan", **settings)["processes"][number]
    overrides = {"trim_blocks": True, "lstrip_blocks": True}
    rendered = templar(__router_process=process, **settings).template(
        text, escape_backslashes=False, overrides=overrides
    )
    return rendered.rstrip("\n") + "\n"


def settings_of(unit):
    return [line.split("=", 1) for line in unit.splitlines() if re.match(r"[A-Z]\w+=", line)]


@pytest.mark.parametrize("number", [0, 1])
def test_the_key_is_in_a_file_for_root_and_nowhere_else(number):
    assert render("key.j2") == f"{KEY}\n"
    assert KEY not in render("router.service.j2", number) + render("settings.json.j2")
    (written,) = [file for file in value("__router_files") if file["src"] == "key.j2"]
    assert written["secret"] is True


@pytest.mark.parametrize("number", [0, 1])
def test_a_unit_starts_its_own_process_as_a_user_of_its_own(number):
    unit = settings_of(render("router.service.j2", number))
    named = dict(unit)
    run_dir = names.run_dir(names.ROUTER_UNITS[number])
    assert named["User"] == "gpunode-router"
    assert f"/run/{named['RuntimeDirectory']}" == run_dir
    words = named["ExecStart"].split()
    assert words[:2] == [f"{DEFAULTS['router_venv']}/bin/python", DEFAULTS["router_program"]]
    assert f"--number={number}" in words
    assert f"--control-key={names.router_control_key(names.ROUTER_UNITS[number])}" in words
    assert int(named["TimeoutStopSec"]) > DEFAULTS["router_drain_timeout_s"]
    # Root's alone: the files are put aside, and the key is copied.
    assert all(line.startswith("+") for key, line in unit if key == "ExecStartPre")
    assert named["CapabilityBoundingSet"] == ""


def test_what_is_put_aside_is_what_the_playbook_compares():
    (aside, _key) = [line for key, line in settings_of(render("router.service.j2")) if key == "ExecStartPre"]
    runs = value("__router_plan")["processes"][0]["runs"]
    assert aside.endswith(" ".join([runs["started_from"], *runs["files"]]))


def test_the_settings_are_what_the_program_reads():
    settings = json.loads(render("settings.json.j2", router_port="31000", router_policy="random"))
    words = program.arguments(settings, 0, KEY, "control", {})
    assert words[words.index("--port") + 1] == "31000"
    assert words[words.index("--policy") + 1] == "random"


def test_each_package_has_a_version_and_hashes():
    lines = [line for line in value("__router_requirements").splitlines() if not line.startswith("#")]
    assert [line.split()[0] for line in lines] == ["smg==1.13.0", "setproctitle==1.3.8"]
    for line in lines:
        hashes = line.split()[1:]
        assert len(set(hashes)) == len(hashes) > 1
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in hashes)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"router_pip_index_url": "https://mirror/simple"}, ["--index-url", "https://mirror/simple"]),
        (
            {"router_wheels": "/srv/b/wheels", "router_pip_index_url": "x"},
            ["--no-index", "--find-links", "/srv/b/wheels"],
        ),
        ({"router_ca_path": "/etc/ca.pem", "router_pip_args": "-v"}, ["--cert", "/etc/ca.pem", "-v"]),
    ],
)
def test_pip_takes_only_what_has_a_hash(settings, expected):
    words = value("__router_pip_args", **settings).split()
    assert words == ["--require-hashes", "--no-deps", "--only-binary", ":all:", *expected]
