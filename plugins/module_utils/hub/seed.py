# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service that serves a node's weights to other nodes of the play: rsync's daemon, for a limited time.

It serves only the files of the requested snapshots, read only, to the addresses of the followers, with a password that
is new at every start. It runs as a transient unit with its own files. systemd stops it after a time limit, even if no
play comes back to stop it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

from .. import paths
from ..node import commands, files as node_files
from ..units import job as units_job
from . import rsync as hub_rsync, snapshot as hub_snapshot
from .snapshot import Cache, Found

UNIT = "gpunode-weights-seed"
FOLDER = "/run/gpunode/seed"
SECRETS = "rsyncd.secrets"
#: It serves as nobody, chrooted to the cache; these capabilities are needed for that.
PROPERTIES = {
    "CapabilityBoundingSet": "CAP_SYS_CHROOT CAP_SETUID CAP_SETGID CAP_DAC_READ_SEARCH CAP_NET_BIND_SERVICE",
    "NoNewPrivileges": "yes",
    "ProtectHome": "read-only",
    "ProtectSystem": "strict",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
}
NOBODY = 65534
START_S = 10.0

Params = Mapping[str, Any]


class Failed(Exception):
    """The message is for the user."""


@dataclass(frozen=True)
class World:
    """Everything outside of this process. ``free``: whether an address and port can be bound."""

    run: commands.Runner
    free: Callable[[str, int], bool]
    sleep: Callable[[float], None] = time.sleep
    folder: str = FOLDER


def configuration(params: Params, found: Sequence[Found], folder: str) -> str:
    """The text of rsyncd.conf."""
    names = [name for present in found for name in shown(present)]
    return f"""\
# The weights, for the other nodes of one play. Removed when the play ends.
address = {params["address"]}
port = {params["port"]}
reverse lookup = no

[{hub_rsync.MODULE}]
    path = {Cache(params["home"]).hub}
    use chroot = yes
    uid = {NOBODY}
    gid = {NOBODY}
    read only = yes
    list = no
    hosts allow = {" ".join(params["followers"])}
    auth users = {hub_rsync.USER}
    secrets file = {os.path.join(folder, SECRETS)}
    strict modes = yes
    timeout = 600
    # Hide other files of the cache, and other names of these files.
    include = {" ".join(names)}
    exclude = *
"""


def shown(found: Found) -> list[str]:
    """The include patterns of a snapshot: every parent folder, then its files."""
    parts = Cache("/").snapshot(found.snapshot.repo_id, found.commit).split("/")[2:]
    ways = ["/".join(["", *parts[: depth + 1], ""]) for depth in range(len(parts))]
    return [*ways, f"{ways[-1]}**"]


def check(params: Params) -> None:
    if not params["followers"]:
        raise Failed("No follower is given. Without a list of followers the service would be open to every address.")
    for address in [params["address"], *params["followers"]]:
        try:
            paths.address(address)
        except paths.Refused as refused:
            raise Failed(f"{refused}. Give the followers as IP addresses: names are not trusted here.") from None


def serve(params: Params, check_mode: bool, world: World) -> dict[str, Any]:
    """Start the service with a new password; replace one that an earlier play left."""
    check(params)
    found = [
        hub_snapshot.look(params["home"], snapshot) for snapshot in hub_snapshot.parse_snapshots(params["snapshots"])
    ]
    outside = [present.outside for present in found if present.outside]
    if outside:  # rsync's daemon is chrooted to the cache
        raise Failed(" ".join(outside))
    lacking = [
        f"{present.snapshot.repo_id} at {present.snapshot.revision}" for present in found if not present.complete
    ]
    if lacking and not check_mode:
        raise Failed(f"These weights are not on this node, so they cannot be served: {', '.join(lacking)}.")
    manifests = [present.manifest.content() for present in found if present.complete and present.manifest]
    if not check_mode:
        begin(params, found, world)
    return {"changed": True, "address": params["address"], "port": params["port"], "manifests": manifests}


def begin(params: Params, found: Sequence[Found], world: World) -> None:
    units_job.forget(world.run, UNIT)
    if not world.free(params["address"], params["port"]):
        raise Failed(
            f"Port {params['port']} of {params['address']} cannot be bound: another program listens there, or the"
            " address is not one of this node. Set huggingface_seed_port or huggingface_lan_address."
        )
    secret = f"{hub_rsync.USER}:{secrets.token_urlsafe(32)}\n"
    os.makedirs(world.folder, mode=0o700, exist_ok=True)
    node_files.write_atomically(os.path.join(world.folder, SECRETS), secret, mode=0o600)
    path = os.path.join(world.folder, "rsyncd.conf")
    node_files.write_atomically(path, configuration(params, found, world.folder), mode=0o600)
    spec = units_job.JobSpec(
        name=UNIT,
        argv=["rsync", "--daemon", "--no-detach", f"--config={path}"],
        description="Weights for other nodes",
        properties={**PROPERTIES, "RuntimeMaxSec": str(params["life_s"])},
        paths=units_job.absolute(params["home"]),
    )
    units_job.start_or_attach(world.run, spec)
    await_port(params, world)


def await_port(params: Params, world: World) -> None:
    """Wait until rsync listens: systemd counts the unit as started before that."""
    pause = 0.1
    for _attempt in range(int(START_S / pause)):
        state = units_job.look(world.run, UNIT)
        if state.state != "running":
            log = "; ".join(units_job.log_tail(world.run, UNIT, lines=3)) or f"it ended with {state.exit_status}"
            raise Failed(f"rsync's daemon ended at once: {log}")
        if not world.free(params["address"], params["port"]):
            return
        world.sleep(pause)
    raise Failed(f"rsync's daemon does not listen on {params['address']}:{params['port']} after {START_S:.0f} s.")


def end(check_mode: bool, world: World) -> dict[str, Any]:
    """Stop the service and delete its password."""
    there = units_job.look(world.run, UNIT).state != "absent" or os.path.exists(world.folder)
    if there and not check_mode:
        units_job.forget(world.run, UNIT)
        shutil.rmtree(world.folder, ignore_errors=True)
    return {"changed": there}
