# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of the hub in one option: each reaches the module under its own name, what is empty does not."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpunode.llm.plugins.action import preflight_check
from ansible_collections.gpunode.llm.tests.unit import as_ansible

HUB = {"endpoint": "https://hub.test", "source": "", "ca_path": None, "client": {}, "update": False, "environment": {}}


def called(**args: Any) -> dict[str, Any]:
    action = as_ansible.action(preflight_check.ActionModule, args, {"changed": False}, check_mode=False)
    action.run(task_vars={"inventory_hostname": "gpu-1"})
    given: dict[str, Any]
    _module, given = action._execute_module.call
    assert len(given.pop("digest")) == 64
    return given


def test_the_hub_in_one() -> None:
    assert called(hub=HUB, skip=["hub"]) == {"endpoint": "https://hub.test", "update": False, "skip": ["hub"]}


def test_an_explicit_setting_counts() -> None:
    assert called(hub=HUB, endpoint="https://other.test", update=True) == {
        "endpoint": "https://other.test",
        "update": True,
    }
    assert called() == {}
