# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.modules.preflight_check import settled


@pytest.mark.parametrize(
    ("given", "mode", "update", "missing", "expected"),
    [
        ("hf_a", 0o600, False, [], True),
        ("", 0o600, False, [], True),
        ("hf_b", 0o600, False, [], False),  # another token
        ("hf_a", 0o644, False, [], False),  # the right one, for all to read
        ("hf_a", 0o600, True, [], False),  # the hub is to be asked again
        ("hf_a", 0o600, False, ["weights"], False),
    ],
)
def test_weights_are_settled(tmp_path, given, mode, update, missing, expected):
    path = tmp_path / "token"
    path.write_text("hf_a")
    path.chmod(mode)
    params = {"source": None, "token": given, "token_path": str(path), "update": update, "elsewhere": []}
    assert settled(params, missing, [])["weights"] is expected


def test_images_are_settled_by_themselves(tmp_path):
    params = {"source": None, "token": "", "token_path": str(tmp_path / "none"), "update": False, "elsewhere": []}
    assert settled(params, ["weights"], []) == {"weights": False, "images": True}
    assert settled(params, [], ["image"]) == {"weights": True, "images": False}
