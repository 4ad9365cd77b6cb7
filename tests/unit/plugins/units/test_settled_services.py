# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one value of each service stands for in a question to the node."""

from __future__ import annotations

from ansible_collections.gpunode.llm.plugins.action import units_settled
from ansible_collections.gpunode.llm.plugins.plugin_utils import service

ONE = service.service({"name": "a", "image": "i:1", "port": 8000}, {})
PROGRAM = {"src": "p", "dest": "/lib/p", "template": False}


def test_a_service_stands_for_all_that_is_looked_at() -> None:
    args = {"services": [ONE], "files": [PROGRAM], "units": [], "endpoints": [], "item_var": "it"}
    found = units_settled.spread(args)
    assert "services" not in found
    assert found["each"] == [ONE]
    assert [file["dest"] for file in found["files"]] == [
        "/lib/p",
        "/etc/vllm/a.yaml",
        "/etc/vllm/a.env",
        "/etc/vllm/a.keys.yaml",
        "/etc/systemd/system/vllm-a.service",
        "/etc/vllm/a.json",
    ]
    assert (found["units"], found["endpoints"]) == ([ONE["runs"]], [ONE["endpoint"]])
    assert "/run/gpunode/beside/a-beside.env" in found["absent"]


def test_without_one_the_arguments_are_as_they_were_given() -> None:
    args = {"files": [PROGRAM], "units": [], "endpoints": [], "absent": ["/x"]}
    assert units_settled.spread({**args, "services": []}) == args


def test_what_keeps_ranks_together_is_looked_at_as_well() -> None:
    group = {"size": 2, "rank": 1, "nodes": ["n1", "n2"], "addresses": ["10.0.0.1", "10.0.0.2"], "master_port": 29501}
    rank = service.service({"name": "a", "image": "i:1", "port": 8000, "group": group}, {})
    found = units_settled.spread({"services": [rank], "files": [PROGRAM], "units": [], "endpoints": []})
    assert [unit["name"] for unit in found["units"]] == ["gpunode-peer@a.service", "vllm-a.service"]
    # An engine that runs on one node now has left it behind.
    unit = "/etc/systemd/system/gpunode-peer@a.service"
    assert unit not in found["absent"]
    alone = units_settled.spread({"services": [ONE], "files": [PROGRAM], "units": [], "endpoints": []})
    assert unit in alone["absent"]
