# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker engine of this node: engine_info's answer, which preflight_check gives as well."""

from __future__ import annotations

import getpass
import grp
import os
import pwd
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from ansible_collections.gpunode.llm.plugins.module_utils import _apt_here, _daemon_file, _engine

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]
Which = Callable[[str], Optional[str]]

MARKERS = ["/etc/apt/sources.list.d/docker.sources", "/etc/yum.repos.d/docker-ce.repo"]
CONFIG = "/etc/docker/daemon.json"


def describe(asked: Mapping[str, Any], run: Runner, which: Which) -> Dict[str, Any]:
    """``asked`` holds the options of engine_info; those that are left out are its defaults."""
    found = engine(run, which("docker"))
    names = asked.get("users")
    return {
        "works": found.works,
        "server_version": found.server,
        "client_version": found.client,
        "ours": any(is_ours(marker) for marker in asked.get("markers") or MARKERS),
        "service": service(run, which("systemctl")),
        "config_settled": config_settled(asked.get("config_path") or CONFIG, asked.get("config") or {}),
        "settings_due": _daemon_file.due(),
        "packages_settled": bool(asked.get("apt")) and _apt_here.settled(asked["apt"], run),
        **users(login() if names is None else names, asked.get("group") or "docker"),
    }


def engine(run: Runner, docker: Optional[str]) -> _engine.Engine:
    if not docker:
        return _engine.Engine()
    # Exits 1 where no server answers, and tells of the client all the same.
    _rc, out, _err = run([docker, "version", "--format", "{{json .}}"])
    return _engine.parse_version(out)


def service(run: Runner, systemctl: Optional[str]) -> Dict[str, Any]:
    said: Dict[str, str] = {}
    if systemctl:
        _rc, out, _err = run(
            [systemctl, "show", "docker.service", "-p", "LoadState,ActiveState,UnitFileState,DropInPaths"]
        )
        said = _engine.parse_unit(out)
    return {
        "known": said.get("LoadState") == "loaded",
        "active": said.get("ActiveState") == "active",
        "enabled": said.get("UnitFileState") == "enabled",
        "drop_ins": said.get("DropInPaths", "").split(),
    }


def is_ours(marker: str) -> bool:
    if not os.path.exists(marker):
        return False
    with open(marker, encoding="utf-8", errors="replace") as stream:
        return "gpunode.llm" in stream.read()


def config_settled(path: str, wanted: Dict[str, Any]) -> bool:
    """A file that cannot be read is not settled: whoever merges into it says what is wrong with it."""
    try:
        _text, here = _daemon_file.read(path)
        return _daemon_file.merged(path, here, wanted) == here
    except ValueError:
        return False


def login() -> Sequence[str]:
    """Whoever came in, before becoming root; root needs no group."""
    name = os.environ.get("SUDO_USER") or getpass.getuser()
    return [] if name == "root" else [name]


def users(names: Sequence[str], group: str) -> Dict[str, Any]:
    unknown, missing, members, gid = [], [], [], None
    try:
        entry = grp.getgrnam(group)
        members, gid = entry.gr_mem, entry.gr_gid
    except KeyError:
        pass
    for name in names:
        try:
            primary = pwd.getpwnam(name).pw_gid
        except KeyError:
            unknown.append(name)
            continue
        if name not in members and primary != gid:
            missing.append(name)
    return {"group_exists": gid is not None, "users_missing": missing, "users_unknown": unknown}
