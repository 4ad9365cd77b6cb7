# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module bundle does around its job: start it, report progress, configure the node's apt for its packages."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from typing import Any, Mapping

from .. import paths
from ..hub import progress as hub_progress, sight as hub_sight, snapshot as hub_snapshot
from ..node import commands, files as node_files, schema as node_schema, words
from ..packages import apt as packages_apt
from ..units import job as units_job
from . import __main__ as bundle_main, contents as bundle_contents
from .contents import BundleError, Contents

RUN = "/run/gpunode"
CODE = (bundle_contents, bundle_main, hub_snapshot, hub_progress, hub_sight, node_files, node_schema, paths, words)
#: The sources that the roles write. Docker and the toolkit are signed with keys of their own there.
ROLES_SOURCES = ("docker.sources", "nvidia-container-toolkit.sources")
#: Valid names of a suite or a component; the suite of a flat repository is a path.
_NAME = re.compile(r"[\w.+~/-]+", re.ASCII)
#: The records of ``apt_mirror``: one for each request.
_RECORD = re.compile(r"apt/[^/]+\.json")
#: The keys that each distribution comes with.
KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/ubuntu-archive-keyring.gpg")


def unit(job: Mapping[str, Any]) -> str:
    return units_job.unit_name(f"gpunode-bundle-{job['state']}", str(job["path"]))


def start(run: commands.Runner, job: Mapping[str, Any], root: str = RUN) -> None:
    """Start the job, or attach to a running one."""
    name = unit(job)
    folder = os.path.join(root, name)
    if units_job.look(run, name).state == "running":
        return
    units_job.write_code(folder, CODE)
    node_files.write_atomically(os.path.join(folder, "job.json"), json.dumps(dict(job)))
    node_files.write_atomically(os.path.join(folder, "status.json"), "{}")
    environment = f'PYTHONPATH="{folder}"\nPYTHONDONTWRITEBYTECODE="1"\n'
    node_files.write_atomically(os.path.join(folder, "environment"), environment)
    spec = units_job.JobSpec(
        name=name,
        argv=[sys.executable, "-m", str(bundle_main.__package__), folder],
        description=f"Bundle {job['path']}",
        environment_file=os.path.join(folder, "environment"),
        properties={"User": "root", "UMask": "0022"},
        paths=units_job.absolute(str(job["path"])),
    )
    units_job.start_or_attach(run, spec)


def wait(run: commands.Runner, job: Mapping[str, Any], seconds: float, root: str = RUN) -> tuple[bool, str, bool]:
    """Whether the job has ended, its progress in words, and whether it changed anything.

    Raises:
        BundleError: the job failed.
    """
    name = unit(job)
    state = units_job.wait(run, name, seconds)
    try:
        status = hub_progress.Status(**json.loads(node_files.read_text(os.path.join(root, name, "status.json"))))
    except (OSError, ValueError, TypeError):
        status = hub_progress.Status()
    if state.state == "running":
        return False, status.line(), False
    log = [] if status.error else units_job.log_tail(run, name, state.invocation, lines=3)
    units_job.forget(run, name)
    if status.error or state.state != "succeeded":
        raise BundleError(status.error or f"The bundle's job was stopped: {'; '.join(log) or state.result}")
    return True, status.line(), status.changed


def manifest_text(path: str, tar: str) -> str:
    """The manifest of the folder, or of the tar if there is no folder; empty if there is neither."""
    folder = os.path.join(path, bundle_contents.MANIFEST)
    if os.path.exists(folder):
        return node_files.read_text(folder)
    if os.path.isdir(path):
        raise BundleError(f"{path} is not a bundle: it has no {bundle_contents.MANIFEST}.")
    return bundle_contents.packed_manifest(tar) if os.path.exists(tar) else ""


def check_system(contents: Contents, system: Mapping[str, str]) -> None:
    """Raise BundleError for another release or architecture: its packages do not fit what is installed."""
    made, here = ([s[key] for key in ("release", "architecture")] for s in (contents.system, system))
    if made != here:
        raise BundleError(
            f"The bundle is for {' on '.join(made)}, but this node is {' on '.join(here)}: make one for it."
        )


def mark(text: str, path: str) -> str:
    """A text that identifies this bundle at this path."""
    return hashlib.sha256(f"{path}\n{text}".encode()).hexdigest() + "\n"


def apt_files(path: str, root: str, contents: Contents, keyrings: tuple[str, ...] = KEYRINGS) -> dict[str, str]:
    """The configuration of an apt that sees only the bundle: the node's own sources need a network, and stay."""
    keyring = next((path for path in keyrings if os.path.exists(path)), "")
    if not keyring:
        raise BundleError(f"This node lacks the keys of its distribution: {' or '.join(keyrings)}.")
    sources = f"{root}/sources.list.d"
    settings = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": sources,
        "Dir::State::Lists": f"{root}/lists",
        "Acquire::Languages": "none",
        # Signatures do not expire, but the index has Valid-Until.
        "Acquire::Check-Valid-Until": "false",
        # Choose the versions that were chosen when the bundle was made.
        "APT::Get::Always-Include-Phased-Updates": "true",
        # apt as root can then read a folder that only root may enter.
        "APT::Sandbox::User": "root",
    }
    stanzas = [
        packages_apt.Source(
            f"file://{path}/{row['path']}", row["suite"], tuple(row["components"]), (), keyring
        ).render()
        for row in distributions(path, contents)
    ]
    return {
        f"{root}/apt.conf": packages_apt.configuration(settings),
        f"{sources}/distribution.sources": "\n".join(stanzas),
    }


def distributions(path: str, contents: Contents) -> list[dict[str, Any]]:
    """The repositories of the bundle that the distribution signs, each once, from the records in the manifest.

    Raises:
        BundleError: a record names something that is not a repository of the bundle.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for record in sorted(file.path for file in contents.files if _RECORD.fullmatch(file.path)):
        try:
            repositories = json.loads(node_files.read_text(os.path.join(path, record)))["repositories"]
            for row in map(repository, repositories):
                if not row["own"]:
                    rows[(row["path"], row["suite"])] = row
        except (ValueError, KeyError, TypeError, AttributeError) as trouble:
            raise BundleError(f"{record} of the bundle {path} is invalid: {trouble}.") from trouble
    return list(rows.values())


def repository(row: Mapping[str, Any]) -> dict[str, Any]:
    """Check a repository from a bundle's record: it must lie below ``apt/``, with valid names.

    Raises:
        Refused: its path or a name is invalid.
    """
    place = paths.relative(row["path"])
    # apt expands percent and dollar signs, which would give another path.
    if not place.startswith("apt/") or re.search(r"[\s%$]", place):
        raise paths.Refused(f"{place!r} is not a repository of the bundle")
    names = [row["suite"], *row["components"]]
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name.split("/"):
            raise paths.Refused(f"{name!r} is not a suite or component")
    return {"path": place, "suite": names[0], "components": names[1:], "own": bool(row["own"])}
