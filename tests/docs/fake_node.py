# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A collection whose modules answer what a node with eight H100 would, so that a play runs whole on the controller.

Roles, playbooks, action plugins, filters and templates are the checkout's own: every condition and every value of a
play is worked out. Plays run with ``--check``, so that the modules of ansible.builtin change nothing either.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.gpunode.llm.plugins.module_utils.node import health
from ansible_collections.gpunode.llm.plugins.module_utils.programs.gpu import parse

CHECKOUT = Path(__file__).resolve().parents[2]
BOARD = CHECKOUT / "tests" / "fixtures" / "nvidia_smi" / "h100x8.xml"
SYSTEM = {
    "ansible_architecture": "x86_64",
    "ansible_distribution": "Debian",
    "ansible_distribution_major_version": "12",
    "ansible_distribution_release": "bookworm",
    "ansible_distribution_version": "12.11",
    "ansible_nodename": "gpu-1",
    "ansible_os_family": "Debian",
    "ansible_service_mgr": "systemd",
    "ansible_systemd": {"version": 252},
}
DOCKER = {
    "works": True,
    "server_version": "29.1.0",
    "client_version": "29.1.0",
    "ours": True,
    "obstacle": "",
    "toolkit_version": "1.20.0",
    "service": {"known": True, "active": True, "enabled": True, "drop_ins": []},
    "config_settled": True,
    "settings_due": "",
    "packages_settled": True,
    "group_exists": True,
    "users_missing": [],
    "users_unknown": [],
}
GPUS: dict[str, Any] = {**parse(BOARD.read_text(encoding="utf-8")).as_dict(), "system": SYSTEM}
DRIVER = {"version": GPUS["driver_version"], "open": True}
SOURCE: dict[str, Any] = {
    "missing": [],
    "versions": {},
    "held": [],
    "conflicting": [],
    "lists_fresh": True,
    "kept": False,
}
SEED = {"address": "192.0.2.10", "port": 8730, "manifests": []}


def nvidia_smi(argv: Sequence[str], **_options: Any) -> tuple[int, str, str]:
    """What the eight say of themselves; nothing of their links."""
    return 0, BOARD.read_text(encoding="utf-8") if "-x" in argv else "", ""


#: What each module says. Weights, image and instances are still to come, so that all of the play has something to do.
ANSWERS: dict[str, dict[str, Any]] = {
    "apt_source": SOURCE,
    "benchmark": {"records": [], "paths": [], "done": True, "progress": ""},
    "docker_info": DOCKER,
    "driver_info": {
        **{"kernel": "6.1.0-41-amd64", "headers": True, "secure_boot": None, "fabric_manager": "", "gpus": GPUS},
        **{"loaded": DRIVER, "on_disk": DRIVER, "engines": [], "initramfs": [], "packages": {}, "lists": {}},
        **{"held": [], "system": SYSTEM},
    },
    "gpu_health_info": health.answer(nvidia_smi, lambda name: f"/usr/bin/{name}", False),
    "gpu_info": GPUS,
    "gpu_proof": {"uuids": [], "method": "container", "fresh": True},
    "hf_cache_info": {"complete": False, "snapshots": [], "verified": [], "client_version": "", "token_current": True},
    "hf_cache_prune": {"removed": [], "kept": [], "bytes_freed": 0, "summary": "Nothing to remove."},
    "hf_seed": SEED,
    "hf_snapshot": {"snapshots": [], "done": True, "progress": "all of it"},
    "image_pull": {"done": True, "progress": "", "image": "image", "image_id": "sha256:0"},
    "node_info": GPUS,
    "nvidia_runtime": {"settings": [], "restart": False, "unit_enabled": True, "server_version": "29.1.0"},
    "preflight_check": {
        "findings": [],
        "account": "",
        "settled": {"weights": False, "images": False},
        "docker": DOCKER,
        "fetch": [{"kind": "weights", "bytes": 16_060_000_000}, {"kind": "image", "bytes": 30_000_000_000}],
        "disks": [
            {"paths": ["/var/lib/huggingface", "/var/lib/docker"], "free": 1_800_000_000_000, "bytes": 46_060_000_000}
        ],
        "bytes_to_write": 46_060_000_000,
    },
    "rendered_files": {"changed_files": ["/etc/vllm/8b.yaml"], "changed": True},
    "tune": {"tune": {}, "done": True, "progress": ""},
    "support_archive": {"files": ["status.txt"], "bytes": 2048},
    "units_ready": {"units": [], "endpoints": [], "done": True, "progress": ""},
    "units_settled": {"settled": False, "due": ["/etc/vllm/8b.yaml differs"], "endpoints": []},
    "vllm_instances_info": {"instances": []},
    "vllm_room_info": {"rooms": []},
    "vllm_status": {"instances": [], "docker_runs": True, "front": "", "gpu_message": ""},
}
STUB = """#!/usr/bin/python
# WANT_JSON
import json, sys
answer = json.loads({answer!r})
if {echoes!r}:
    answer["instances"] = json.load(open(sys.argv[1]))["instances"]
print(json.dumps(dict(answer, changed=answer.get("changed", False))))
"""


def make(collections: Path, own: Collection[str] = ()) -> Path:
    """Copy the collection, with modules that answer in place of its own; return it, which stands for a checkout.

    ``own``: modules that stay what they are, since with ``--check`` they only look.
    """
    home = collections / "ansible_collections" / "gpunode" / "llm"
    for name in ("catalog", "inventories", "meta", "playbooks", "plugins", "roles"):
        shutil.copytree(CHECKOUT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("ansible.cfg", "galaxy.yml", "site.yml"):
        shutil.copy(CHECKOUT / name, home / name)
    for path in (home / "plugins" / "modules").glob("[a-z]*.py"):
        if path.stem in own:
            continue
        answer = json.dumps(ANSWERS.get(path.stem, {}))
        stub = STUB.format(answer=answer, echoes=path.stem == "preflight_check")
        path.write_text(stub, encoding="utf-8")
    return home
