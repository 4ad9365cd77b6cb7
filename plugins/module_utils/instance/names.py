# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units, folders and files that two sides must call by the same name: a role and a module, an engine and the gateway.

Each name is written here and nowhere else. Templates get it as a value. Imports nothing, so both the controller and the
node can have it.
"""

from __future__ import annotations

#: Where units are, and where those are that the next boot forgets.
UNIT_DIR, SECOND_UNIT_DIR = "/etc/systemd/system", "/run/systemd/system"
#: The files of an instance, what its engine compiles, and what it last answered from. The role vllm can move all three.
CONFIG_DIR, CACHE_DIR, KEPT_DIR = "/etc/vllm", "/var/cache/vllm", "/var/lib/gpunode/vllm"
#: The files of a second instance, which runs beside another one for a while.
SECOND_DIR = "/run/gpunode/beside"
#: Where records are looked for. No setting moves them: whoever looks for an instance has no settings.
RECORD_DIRS = (CONFIG_DIR, SECOND_DIR)
#: The gateway, and its record.
GATEWAY_UNIT, GATEWAY_RECORD = "gpunode-gateway.service", "/etc/gpunode/gateway.json"
#: Every unit of an instance.
UNITS = "vllm-*.service"
_SECOND = "-beside"
_ENGINE, _SERVICE = "vllm-", ".service"


def container_of(name: str) -> str:
    """The container of an instance, which is its unit without the suffix."""
    return f"{_ENGINE}{name}"


def unit_of(name: str) -> str:
    """The unit of an instance."""
    return f"{container_of(name)}{_SERVICE}"


def name_of(unit: str) -> str:
    """The instance of a unit."""
    return unit[len(_ENGINE) : -len(_SERVICE)]


def second_of(name: str) -> str:
    """The instance that runs beside another one for a while."""
    return f"{name}{_SECOND}"


def is_second(name: str) -> bool:
    """Whether an instance is such a one. The planner takes no such name for another."""
    return name.endswith(_SECOND)


def run_dir(unit: str) -> str:
    """What a unit keeps while it runs: its RuntimeDirectory."""
    return f"/run/{unit[: -len(_SERVICE)]}"


def started_from(unit: str) -> str:
    """The folder into which a unit copies at its start what it starts from, each file under its whole path."""
    return f"{run_dir(unit)}/started-from"


def standby_file(name: str) -> str:
    """What nginx reads of the second one of an instance. It is there for as long as that one answers."""
    return f"{run_dir(unit_of(second_of(name)))}/front.conf"


def record_path(name: str) -> str:
    """The record of an instance."""
    return f"{SECOND_DIR if is_second(name) else CONFIG_DIR}/{name}.json"
