# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's token: which counts, and how its file is written."""

from __future__ import annotations

import os
import stat

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub import token as hub_token


@pytest.mark.parametrize(
    ("content", "mode", "given", "current", "in_force"),
    [
        ("hf_x", 0o600, "hf_x", True, "hf_x"),
        ("hf_x\n", 0o600, " hf_x", True, "hf_x"),
        ("hf_x", 0o644, "hf_x", False, "hf_x"),
        ("hf_y", 0o600, "hf_x", False, "hf_x"),
        ("hf_y\n", 0o600, "", True, "hf_y"),
        ("hf_y", 0o600, " ", True, "hf_y"),
        ("hf_y", 0o600, None, True, "hf_y"),
        (None, 0, "hf_x\n", False, "hf_x"),
        (None, 0, "", True, ""),
        (None, 0, None, True, ""),
    ],
)
def test_which_token_counts(tmp_path, content, mode, given, current, in_force):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    assert hub_token.current(str(path), given) is current
    assert hub_token.in_force(given, str(path)) == in_force
    assert hub_token.read(str(path)) == (content or "").strip()


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_its_owner_alone_reads_what_is_written(tmp_path, umask):
    path = tmp_path / "new" / "huggingface" / "token"
    hub_token.write(str(path), " hf_x\n")
    assert path.read_text() == "hf_x"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    hub_token.write(str(path), "hf_y")
    assert hub_token.current(str(path), "hf_y")
    assert sorted(path.parent.iterdir()) == [path]


def test_a_folder_that_is_there_keeps_its_mode(tmp_path):
    """Of /etc/token it is /etc."""
    tmp_path.chmod(0o755)
    hub_token.write(str(tmp_path / "token"), "hf_x")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
