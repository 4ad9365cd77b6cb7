# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance means for the wait and for the person who tries it."""

from __future__ import annotations

import json
import shlex

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils import service

INSTANCE = {"name": "8b", "served_model_name": "meta/8b", "image": "i:1", "host": "0.0.0.0", "port": "8001"}


def test_endpoint():
    assert service.service({**INSTANCE, "start_timeout_s": 600}, {"gpu_timeout_s": 0})["endpoint"] == {
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
    assert service.vllm_curl({**INSTANCE, "host": host}, keyed).startswith(start)


def test_curl_is_quoted_for_a_shell():
    words = shlex.split(service.vllm_curl({**INSTANCE, "served_model_name": "it's; $(id)"}))
    assert json.loads(words[-1])["model"] == "it's; $(id)"


def test_a_name_stands_in_where_no_served_name_is_given():
    assert service.served_name({"name": "8b", "served_model_name": None}) == "8b"


def test_a_second_instance_is_the_same_elsewhere():
    first = {**INSTANCE, "gpu_indices": [0, 1], "config": {"tensor-parallel-size": 2}}
    (second,) = service.second_instances([first], [{"name": "8b", "port": 18000, "gpu_indices": [6, 7]}])
    moved = {"name": "8b-beside", "first": "8b", "host": "127.0.0.1", "port": 18000, "gpu_indices": [6, 7]}
    assert second == {**first, **moved, "config": {"tensor-parallel-size": 2, "port": 8001}}
    assert service.service(second, {})["runs"]["files"] == [
        "/run/gpunode/beside/8b-beside.yaml",
        "/run/gpunode/beside/8b-beside.env",
        "/run/systemd/system/vllm-8b-beside.service",
    ]
    assert service.service(first, {})["second"]["files"][-2:] == [
        "/run/systemd/system/vllm-8b-beside.service",
        "/run/gpunode/beside/8b-beside.json",
    ]


def test_its_name_to_clients_is_the_first_one_s_where_none_is_given():
    (second,) = service.second_instances(
        [{"name": "8b", "port": 8000}], [{"name": "8b", "port": 18000, "gpu_indices": []}]
    )
    assert service.served_name(second) == "8b"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "8b-beside"}, "ends in '-beside'"),
        ({"name": "Big One"}, "'Big One' is not a valid name for an instance: use 'big-one'."),
        ({"host": "localhost"}, "host must be an IP address"),
    ],
)
def test_an_instance_that_no_plan_made_is_looked_at_too(wrong, says):
    with pytest.raises(ValueError, match=says):
        service.service({**INSTANCE, **wrong}, {})


@pytest.mark.parametrize(
    ("task", "url", "body"),
    [
        ("embed", "http://127.0.0.1:8001/v1/embeddings", {"input": "Say hello."}),
        (
            "rerank",
            "http://127.0.0.1:8001/v1/rerank",
            {"query": "What says hello?", "documents": ["Hello.", "Goodbye."]},
        ),
        ("classify", "http://127.0.0.1:8001/classify", {"input": "Say hello."}),
        ("pooling", "http://127.0.0.1:8001/pooling", {"input": "Say hello."}),
    ],
)
def test_curl_of_a_pooling_model(task, url, body):
    words = shlex.split(service.vllm_curl({**INSTANCE, "task": task}))
    assert (words[2], json.loads(words[-1])) == (url, {"model": "meta/8b", **body})


def test_a_pooling_model_is_waited_for_by_its_task():
    assert service.service({**INSTANCE, "task": "embed"}, {})["endpoint"]["task"] == "embed"
    assert json.loads(service.service({**INSTANCE, "task": "embed"}, {})["record"])["task"] == "embed"


def test_an_engine_that_counts_by_client_loads_what_counts_and_keeps_the_rest():
    given = {"usage": True, "env": {"PYTHONPATH": "/mine"}, "run_as_root": False}
    plain, counting = service.service(INSTANCE, {**given, "usage": False}), service.service(INSTANCE, given)
    assert counting["config"] == {**plain["config"], "middleware": "gpunode_usage.ByClient"}
    assert counting["environment"] == {
        **plain["environment"],
        "PYTHONPATH": "/opt/gpunode:/mine",
        "GPUNODE_USAGE_FILE": "/home/vllm/usage.log",
        "GPUNODE_USAGE_MODEL": "meta/8b",
    }
    assert (plain["usage_target"], counting["usage_target"]) == ("", "/opt/gpunode/gpunode_usage.py")
    assert service.service(INSTANCE, {"usage": True})["environment"]["PYTHONPATH"] == "/opt/gpunode"


def test_a_middleware_of_the_user_s_is_not_taken_away():
    instance = {**INSTANCE, "config": {"middleware": ["mine.Own"]}}
    assert service.service(instance, {})["config"]["middleware"] == ["mine.Own"]
    with pytest.raises(ValueError, match="needs vLLM's option middleware, which extra_args has already"):
        service.service(instance, {"usage": True})
