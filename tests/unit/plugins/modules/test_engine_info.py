# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.modules.engine_info import config_settled


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        (None, {}, True),
        (None, {"debug": True}, False),
        ('{"debug": true, "labels": ["a"]}', {"debug": True}, True),
        ('{"debug": false}', {"debug": True}, False),
        ('{"log-opts": {"max-size": "1m"}}', {"log-opts": {"max-file": "3"}}, False),
        ('{"debug": true}', {"debug": None}, False),  # a null takes its key away
        ("{", {}, False),  # whoever merges says what is wrong with it
    ],
)
def test_config_settled(tmp_path, text, wanted, expected):
    path = tmp_path / "daemon.json"
    if text is not None:
        path.write_text(text)
    assert config_settled(str(path), wanted) is expected
