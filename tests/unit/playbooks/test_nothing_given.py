# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What site.yml works out before its first task: a variable that is there and empty is one that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

SITE = Path(__file__).resolve().parents[3] / "playbooks" / "site.yml"
(PLAY,) = yaml.safe_load(SITE.read_text(encoding="utf-8"))
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
