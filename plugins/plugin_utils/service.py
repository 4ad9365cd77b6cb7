# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance of a plan means for systemd, for the wait and for the person who tries it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..module_utils.programs.vllm_wait import reachable_host
from .planner.request import host_address, instance_name


def served_name(instance: Mapping[str, Any]) -> str:
    return str(instance.get("served_model_name") or instance["name"])


def second_name(name: str) -> str:
    """What the one is called that runs beside an instance for a while."""
    return f"{name}-beside"


def unit_dir(instance: Mapping[str, Any]) -> str:
    """Where its unit is: one that runs beside another is gone with the next boot."""
    return "/run/systemd/system" if instance.get("beside") else "/etc/systemd/system"


def vllm_beside(instances: Sequence[Mapping[str, Any]], rooms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Second instances for those that there is room for: the same under the same name, elsewhere."""
    by_name = {str(instance["name"]): instance for instance in instances}
    return [
        {
            **by_name[room["name"]],
            "name": second_name(room["name"]),
            "beside": room["name"],
            "served_model_name": served_name(by_name[room["name"]]),
            "host": "127.0.0.1",
            "port": int(room["port"]),
            "gpu_indices": list(room["gpu_indices"]),
            **({"gpu_uuids": list(room["gpu_uuids"])} if by_name[room["name"]].get("gpu_uuids") else {}),
            # Inside its container it listens where the first one does.
            "config": {"port": int(by_name[room["name"]]["port"]), **by_name[room["name"]].get("config", {})},
        }
        for room in rooms
    ]


def check(instance: Mapping[str, Any]) -> None:
    """Refuse what no unit can be made of, where an instance comes from elsewhere than the planner.

    Raises ValueError for a name that is not its own, and for a host that Docker does not publish on.
    """
    name = str(instance["name"])
    if not instance.get("beside") and instance_name(name) != name:
        raise ValueError(f"{name!r} is no name for an instance: {instance_name(name)!r} would be one.")
    host_address(instance.get("host") or "127.0.0.1")


def vllm_unit(instance: Mapping[str, Any], config_dir: str, several_keys: bool = False) -> dict[str, Any]:
    """What units_current must know of an instance. The list of files is the one that its unit puts aside."""
    check(instance)
    unit = f"vllm-{instance['name']}"
    files = [f"{config_dir}/{instance['name']}.yaml", f"{config_dir}/{instance['name']}.env"]
    if several_keys:
        files.append(f"{config_dir}/{instance['name']}.keys.yaml")
    return {
        "name": f"{unit}.service",
        "files": [*files, f"{unit_dir(instance)}/{unit}.service"],
        "started_from": f"/run/{unit}/started-from",
        "container": unit,
        "image": instance["image"],
    }


def vllm_second(instance: Mapping[str, Any], config_dir: str) -> dict[str, Any]:
    """What there may be of the one that ran beside an instance, as units_removed takes it: the unit file comes last."""
    second = {**instance, "name": second_name(str(instance["name"])), "beside": instance["name"]}
    unit = vllm_unit(second, config_dir, several_keys=True)
    return {"unit": unit["name"], "files": unit["files"]}


def vllm_endpoint(
    instance: Mapping[str, Any], config_dir: str, start_timeout_s: int | None = None, gpu_timeout_s: int = 0
) -> dict[str, Any]:
    """What endpoint_ready must know of an instance. Its start may wait for its GPUs before it begins."""
    start_s = int(start_timeout_s or instance.get("start_timeout_s") or 900)
    return {
        "name": instance["name"],
        "unit": f"vllm-{instance['name']}.service",
        "host": instance.get("host") or "127.0.0.1",
        "port": int(instance["port"]),
        "model": served_name(instance),
        "env_file": f"{config_dir}/{instance['name']}.env",
        # The unit's own time-out comes first, so that the journal tells of it.
        "timeout_s": start_s + int(gpu_timeout_s) + 120,
    }


def base_url(instance: Mapping[str, Any]) -> str:
    """Where an instance is reached from the node itself."""
    host = reachable_host(str(instance.get("host") or "127.0.0.1"))
    return f"http://{f'[{host}]' if ':' in host else host}:{int(instance['port'])}/v1"


def vllm_curl(instance: Mapping[str, Any], keyed: bool = False) -> str:
    """One line for a shell on the node that gets an answer from an instance. It names the key and does not hold it."""
    url = f"{base_url(instance)}/chat/completions"
    body = {"model": served_name(instance), "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 32}
    # In double quotes: the shell is to fill the key in.
    key = ' -H "Authorization: Bearer $VLLM_API_KEY"' if keyed else ""
    return f"curl -s {url}{key} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
