# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of the bundle from the one node to the other, which is cut off before it gets there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from scenario import LAB, Play, nodes, on_node, run_play

# What is left is the lab's own machine, from which ansible comes: no other address, and no names.
CUT = """
set -e
gateway=$(ip -4 route show default | awk '{print $3}')
[ -n "$gateway" ] || exit 0
ip route add "$gateway/32" dev eth0
ip route del default
ip route del "$(ip -4 route show dev eth0 proto kernel | awk '{print $1}')" dev eth0
: >/etc/resolv.conf
"""


def cut_off(node: str) -> None:
    """Take every way out of a node."""
    on_node(CUT, node=node)


@pytest.fixture(scope="session")
def maker() -> str:
    return nodes()[1]


@pytest.fixture(scope="session")
def island(maker: str) -> str:
    """A node that nothing but a tar has come to."""
    name = nodes()[0]
    cut_off(name)
    carry = f"'{LAB}' ssh {maker} cat /srv/bundle.tar | '{LAB}' ssh {name} 'sudo tee /srv/bundle.tar >/dev/null'"
    subprocess.run(carry, shell=True, check=True)
    return name


@pytest.fixture(scope="session")
def deploy(island: str, maker: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Play]:
    """Run site.yml on the island with the variables that came with the bundle, and further arguments."""
    variables: Path = tmp_path_factory.mktemp("bundle") / "vars.yml"
    variables.write_text(on_node("cat /srv/bundle/vars.yml", node=maker))
    return lambda *args: run_play("site.yml", "--limit", island, "-e", f"@{variables}", *args)
