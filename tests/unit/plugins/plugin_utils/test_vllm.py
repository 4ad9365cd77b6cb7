# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance means for the wait and for the person who tries it."""

from __future__ import annotations

import json
import shlex

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils import _vllm

INSTANCE = {"name": "8b", "served_model_name": "meta/8b", "image": "i:1", "host": "0.0.0.0", "port": "8001"}


def test_endpoint():
    assert _vllm.vllm_endpoint({**INSTANCE, "start_timeout_s": 600}, "/etc/vllm") == {
        "name": "8b",
        "unit": "vllm-8b.service",
        "host": "0.0.0.0",
        "port": 8001,
        "model": "meta/8b",
        "env_file": "/etc/vllm/8b.env",
        "timeout_s": 720,
    }


@pytest.mark.parametrize(
    ("host", "keyed", "start"),
    [
        ("0.0.0.0", False, "curl -s http://127.0.0.1:8001/v1/chat/completions -H 'Content-Type"),
        ("::1", False, "curl -s http://[::1]:8001/v1/"),
        (None, True, 'curl -s http://127.0.0.1:8001/v1/chat/completions -H "Authorization: Bearer $VLLM_API_KEY"'),
    ],
)
def test_curl(host, keyed, start):
    assert _vllm.vllm_curl({**INSTANCE, "host": host}, keyed).startswith(start)


def test_curl_is_quoted_for_a_shell():
    words = shlex.split(_vllm.vllm_curl({**INSTANCE, "served_model_name": "it's; $(id)"}))
    assert json.loads(words[-1])["model"] == "it's; $(id)"


def test_a_name_stands_in_where_no_served_name_is_given():
    assert _vllm.served_name({"name": "8b", "served_model_name": None}) == "8b"
