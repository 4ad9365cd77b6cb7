# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""settings_check: all that cannot be read, in one message, and no secret."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpunode.llm.plugins.action.settings_check import ActionModule


def run(**variables: Any) -> dict[str, Any]:
    task = SimpleNamespace(args={}, async_val=0, check_mode=True, diff=False, environment=[], action="settings_check")
    templar = Templar(loader=DataLoader(), variables=variables)
    made = ActionModule(task, MagicMock(), MagicMock(), MagicMock(), templar, MagicMock())
    result: dict[str, Any] = made.run(task_vars=variables)
    return result


def test_what_can_be_read_passes() -> None:
    told = run(
        vllm_api_keys="one,two",
        huggingface_update="true",
        docker_version="",
        vllm_port="9000",
        vllm_restart_limit=4,
        docker_users=None,
        bystander=["anything"],
    )
    assert (told["changed"], told["findings"]) == (False, [])


def test_all_that_cannot_be_read_is_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "huggingface_update": "ture",
        "huggingface_distribution": "sed",
        "vllm_api_keys": {"sk-secret": 1},
        "vllm_restart_limit": trust_as_template("{{ limit }}"),
        "limit": "four",
        "vllm_env": trust_as_template("{{ known_only_later }}"),
        "docker_packages": True,
    }
    with pytest.raises(AnsibleActionFail) as refused:
        run(**wrong)
    assert str(refused.value) == "5 things to mend; nothing was changed."
    said = capsys.readouterr().out
    assert "huggingface_update must be true or false, not 'ture'." in said
    assert "huggingface_distribution must be one of hub, seed, not 'sed'." in said
    assert "vllm_restart_limit must be a whole number such as 4, not 'four'." in said
    assert "docker_packages must be a list such as [one, two] or one,two, not True." in said
    assert "sk-secret" not in said
