# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What site.yml works out before its first task: a variable that is there and empty is one that is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpunode.llm.plugins.plugin_utils import values

SITE = Path(__file__).resolve().parents[3] / "playbooks" / "site.yml"
PLAY, _ROUTER = yaml.safe_load(SITE.read_text(encoding="utf-8"))
NOTHING: list[dict[str, Any]] = [{}, *({"nodes_at_a_time": value, "bundle": value} for value in (None, "", "null"))]


def worked_out(key: str, **variables: Any) -> Any:
    own = {name: trust_as_template(text) for name, text in PLAY.get("vars", {}).items()}
    return Templar(loader=DataLoader(), variables={**own, **variables}).template(trust_as_template(PLAY[key]))


@pytest.mark.parametrize("variables", NOTHING, ids=str)
def test_nothing_is_as_if_it_were_not_there(variables: dict[str, Any]) -> None:
    """Null, or the empty answer of a survey, ended in a traceback of Ansible's own."""
    assert worked_out("serial", **variables) == ["100%"]
    assert worked_out("max_fail_percentage", **variables) == 100
    assert worked_out("environment", **variables) == {}


def test_what_is_given_counts() -> None:
    assert worked_out("serial", nodes_at_a_time="1,25%") == ["1", "25%"]
    assert worked_out("max_fail_percentage", nodes_at_a_time=1) == 0
    assert worked_out("environment", bundle="/srv/bundle") == {"APT_CONFIG": "/var/lib/gpunode/bundle/apt.conf"}


def uses(text: str) -> list[str]:
    """Where a variable of the playbooks has a default, and what becomes of it."""
    bare = re.sub(r"(?m)^ *#.*$", "", text)
    names = "|".join(sorted({name for taken in values.playbooks().values() for name in taken}))
    return re.findall(rf"(?<![\w.'])(?:{names}) \| default\(.*?\}}\}}", bare)


@pytest.mark.parametrize(
    "page", [*SITE.parent.glob("*.yml"), *SITE.parent.glob("tasks/*.yml")], ids=lambda page: page.stem
)
def test_an_empty_text_is_no_value(page: Path) -> None:
    """What nobody filled in on a survey, or `-e level=`, ended with lines of the play."""
    found = uses(page.read_text(encoding="utf-8"))
    assert [use for use in found if "gpunode.llm." not in use and ", true)" not in use] == []


def test_uses_are_found() -> None:
    assert uses('a: "{{ level | default(1) }}"\n# "{{ level | default(2) }}"') == ["level | default(1) }}"]


def test_the_link_and_the_level_that_are_empty_are_the_usual_ones() -> None:
    fit, *_others = (
        task
        for task in yaml.safe_load((SITE.parent / "tasks/fit.yml").read_text(encoding="utf-8"))
        if "register" in task
    )
    link = fit["gpunode.llm.serving_matrix"]["link_mbit_s"]
    (teardown,) = yaml.safe_load((SITE.parent / "teardown.yml").read_text(encoding="utf-8"))
    for value, wanted in (("", 1000), ("null", 1000), (None, 1000), ("2500", 2500), ("0", 0)):
        templar = Templar(loader=DataLoader(), variables={"link_mbit_s": value})
        assert float(templar.template(trust_as_template(link))) == wanted
    for value, wanted in (("", "unit"), ("image", "image")):
        templar = Templar(loader=DataLoader(), variables={"level": value})
        assert templar.template(trust_as_template(teardown["vars"]["__teardown_level"])) == wanted
