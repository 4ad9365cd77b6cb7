# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The addresses of hosts that share one, from what an inventory and the facts say."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.fleet import shared_address


def test_each_host_has_the_first_address_that_others_reach():
    hosts = ["gpu-1", "gpu-2", "gpu-3", "gpu-4"]
    given = ["10.9.0.1", "gpu-2.example.net", "", ""]
    entered = ["10.0.0.1", "127.0.0.1", "10.0.0.3", "gpu-4"]
    routes = ["", "10.0.0.2", "192.168.0.3", ""]
    found = shared_address.from_inventory(hosts, given, entered, routes)
    assert found == {"gpu-1": "10.9.0.1", "gpu-2": "10.0.0.2", "gpu-3": "10.0.0.3", "gpu-4": ""}
    assert shared_address.from_inventory([], [], [], []) == {}


def test_peers_that_are_no_dictionary_are_refused():
    with pytest.raises(ValueError, match="gateway_shared_peers must be a dictionary of hosts"):
        shared_address.peers(["gpu-1"])
