# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles hand to the planner, and which of their variables are secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[3] / "roles"


def load(role: str, path: str):
    return yaml.safe_load((ROLES / role / path).read_text())


@pytest.mark.parametrize("role", ["preflight", "huggingface"])
def test_tokens_are_hidden(role):
    options = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    tokens = [name for name in options if name.endswith("_token")]
    assert tokens
    assert all(options[name]["no_log"] for name in tokens)
