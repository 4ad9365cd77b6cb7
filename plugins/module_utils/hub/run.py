# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hf_snapshot does in one call: inspect, ask the hub, start or attach to the downloads, wait briefly, report."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Callable, Mapping, Sequence

from .. import paths
from ..node import brought as node_brought, commands, files as node_files, network, schema as node_schema, web, words
from ..units import job as units_job
from . import (
    __main__ as hub_main,
    api as hub_api,
    cache as hub_cache,
    client as hub_client,
    file as hub_file,
    folder as hub_folder,
    folder_pull as hub_folder_pull,
    job as hub_job,
    opener as hub_opener,
    progress as hub_progress,
    pull as hub_pull,
    rsync as hub_rsync,
    sight as hub_sight,
    snapshot as hub_snapshot,
    token as hub_token,
)
from .cache import RUN, job_unit
from .snapshot import Found, Snapshot

TIMEOUT_S = 20.0
#: The files that the job consists of.
CODE = (
    hub_snapshot,
    hub_api,
    hub_client,
    hub_file,
    hub_folder_pull,
    hub_job,
    hub_main,
    hub_progress,
    hub_pull,
    hub_rsync,
    hub_sight,
    hub_folder,
    paths,
    web,
    node_files,
    node_schema,
    words,
)
#: The task's environment variables that a download needs: proxies and trusted certificates.
PASSED_ON = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")

Params = Mapping[str, Any]
Result = dict[str, Any]


class Failed(Exception):
    """The message is for the user."""


@dataclass(frozen=True)
class World:
    """Everything outside of this process."""

    run: commands.Runner
    opener: hub_api.Opener
    environment: Mapping[str, str]
    sleep: Callable[[float], None] = time.sleep
    folder: str = RUN
    brought: str = node_brought.PATH


@dataclass(frozen=True)
class Target:
    """A snapshot with its commit and the unit that downloads it; no unit if there is nothing to do."""

    snapshot: Snapshot
    commit: str
    unit: str = ""

    @property
    def pinned(self) -> Snapshot:
        return replace(self.snapshot, revision=self.commit)


def run(params: Params, check_mode: bool, runner: commands.Runner) -> Result:
    opener = hub_opener.opener(TIMEOUT_S, params["ca_path"])
    return step(params, check_mode, World(runner, opener, os.environ))


def step(params: Params, check_mode: bool, world: World) -> Result:
    if params["resume"]:
        targets = [
            Target(Snapshot(**raw["snapshot"]), raw["commit"], raw["unit"]) for raw in params["resume"]["targets"]
        ]
        return report(params, world, targets)
    found = [
        hub_snapshot.look(params["home"], snapshot) for snapshot in hub_snapshot.parse_snapshots(params["snapshots"])
    ]
    outside = [present.outside for present in found if present.outside]
    if outside:
        raise Failed(" ".join(outside))
    if all(present.complete and not asks_again(params, present) for present in found):
        return {**done(found, [False] * len(found)), "fetch_seconds": hub_cache.fetch_seconds(found, world.folder)}
    if check_mode:
        return predict(params, world, found)
    targets = aim(params, world, found)
    note(params, world, targets)
    for target in targets:
        if target.unit:
            start(params, world, target)
    if params["background"]:
        return {**done(found, [bool(t.unit) for t in targets]), "progress": "started", "begun": True}
    return report(params, world, targets)


def note(params: Params, world: World, targets: Sequence[Target]) -> None:
    """Note the repositories before they arrive. One that was there before belongs to somebody else and is not noted."""
    cache = hub_snapshot.Cache(params["home"])
    coming = [target.snapshot.repo_id for target in targets if target.unit]
    node_brought.note(world.brought, models=[repo_id for repo_id in coming if not os.path.isdir(cache.folder(repo_id))])


def asks_again(params: Params, found: Found) -> bool:
    return bool(params["verify"] or (params["update"] and not found.snapshot.pinned))


def from_hub(params: Params) -> bool:
    return bool(params["fetch"] and not params["seeder"])


# -- which commits --------------------------------------------------------------------------------------------------
def hub(params: Params, world: World) -> hub_api.Hub | hub_folder.Folder:
    """The hub, or the folder that replaces it."""
    if params["source"]:
        return hub_folder.Folder(params["source"], hub_snapshot.parse_snapshots(params["snapshots"]))
    token = hub_token.in_force(params["token"], params["token_path"])
    return hub_api.Hub(params["endpoint"], world.opener, world.sleep, token)


def aim(params: Params, world: World, found: Sequence[Found]) -> list[Target]:
    """The commit of every snapshot, and a unit for each with work to do. A seeder's are pinned: no hub is asked."""
    source, account = hub(params, world), None
    targets = []
    for present in found:
        commit, work = present.commit, not present.complete or params["verify"]
        if from_hub(params) and (not present.complete or (params["update"] and not present.snapshot.pinned)):
            if account is None:
                account = source.account() if source.token else ""
            source.check_access(present.snapshot, account)
            if not commit or params["update"]:
                commit = source.commit(present.snapshot)
            work = work or commit != present.commit
        if not commit:
            raise Failed(
                f"{present.snapshot.repo_id} at {present.snapshot.revision} was never downloaded to this node."
            )
        targets.append(Target(present.snapshot, commit, job_unit(present.snapshot.repo_id, commit) if work else ""))
    return targets


def predict(params: Params, world: World, found: Sequence[Found]) -> Result:
    """What a run would download. A hub error is not a failure here; preflight reports it."""
    source = hub(params, world)
    result = done(found, [not present.complete for present in found])
    for row, state in zip(result["snapshots"], found):
        row["bytes_to_fetch"] = 0
        if state.complete:
            continue
        try:
            if params["seeder"]:
                commit, tree = state.commit, seeded(params, state.snapshot).listing
            else:
                commit = state.commit or source.commit(state.snapshot)
                tree = source.tree(state.snapshot, commit)
        except (hub_api.HubError, Failed) as trouble:
            row["bytes_to_fetch"] = -1
            result.setdefault("warnings", []).append(f"The size of the download is unknown: {trouble}")
            continue
        row["revision"], row["bytes"] = commit, hub_snapshot.wanted_bytes(state.snapshot, tree)
        row["bytes_to_fetch"] = row["bytes"] - hub_snapshot.bytes_here(params["home"], state.snapshot, commit, tree)
    fetch = sum(max(0, row["bytes_to_fetch"]) for row in result["snapshots"])
    result["diff"] = diff(found, [row["revision"] or "a commit that is not known yet" for row in result["snapshots"]])
    return {**result, "progress": f"would fetch {words.size(fetch)}"}


# -- the job ----------------------------------------------------------------------------------------------------------
def start(params: Params, world: World, target: Target) -> None:
    """Start the download of a snapshot, or attach to a running one."""
    folder = os.path.join(world.folder, target.unit)
    client = from_hub(params) and not params["source"]
    python = os.path.join(params["venv"], "bin", "python") if client else sys.executable
    if not os.path.exists(python):
        raise Failed(f"{python} does not exist: the role huggingface creates this virtual environment.")
    if units_job.look(world.run, target.unit).state == "running":
        write_secret(params, folder)  # the seeder of each play has a new password
        return
    write_job(params, world, target, folder)
    write_secret(params, folder)
    spec = units_job.JobSpec(
        name=target.unit,
        argv=[python, "-m", str(hub_main.__package__), folder],
        description=f"Weights of {target.snapshot.repo_id}",
        environment_file=os.path.join(folder, "environment"),
        # systemd restarts a download that was killed, but not one that gave up.
        properties={
            "User": "root",
            "UMask": "0022",
            "Restart": "on-abnormal",
            "RestartSec": "2",
            "StartLimitIntervalSec": "300",
            "StartLimitBurst": "5",
        },
        paths=units_job.absolute(params["home"], params["source"]),
    )
    units_job.start_or_attach(world.run, spec)


def write_job(params: Params, world: World, target: Target, folder: str) -> None:
    units_job.write_code(folder, CODE)
    job = hub_job.Job(
        home=params["home"],
        repo_id=target.snapshot.repo_id,
        commit=target.commit,
        branch=target.snapshot.branch if target.snapshot.pinned else target.snapshot.revision,
        ignore_patterns=list(target.snapshot.ignore_patterns),
        allow_patterns=list(target.snapshot.allow_patterns),
        gated=target.snapshot.gated,
        endpoint=params["endpoint"],
        source=params["source"] or "",
        workers=params["workers"],
        attempts=params["attempts"],
        xet=params["xet"],
        verify=params["verify"],
        fetch=params["fetch"],
        seeder=write_seeder(params, target, folder) if params["fetch"] and params["seeder"] else {},
    )
    node_files.write_atomically(os.path.join(folder, "job.json"), json.dumps(asdict(job)))
    node_files.write_atomically(os.path.join(folder, "environment"), environment(params, world, folder), mode=0o600)
    node_files.write_atomically(os.path.join(folder, "status.json"), "{}")


def write_secret(params: Params, folder: str) -> None:
    if params["fetch"] and params["seeder"]:
        # The format of the seeder's rsyncd.secrets: user and password.
        password = (params["seeder_secret"] or "").strip().rpartition(":")[2]
        node_files.write_atomically(os.path.join(folder, hub_job.SECRET), password + "\n", mode=0o600)


def write_seeder(params: Params, target: Target, folder: str) -> dict[str, str]:
    """Write the seeder's password and manifest for a follower's job; return where they are."""
    seeder, path = params["seeder"], os.path.join(folder, "manifest.json")
    node_files.write_atomically(path, seeded(params, target.snapshot).dump())
    address = network.bracketed(seeder["address"])
    return {
        "name": seeder["name"],
        "url": f"rsync://{hub_rsync.USER}@{address}:{seeder['port']}/{hub_rsync.MODULE}",
        "bind": seeder["bind"] or "",
        "secret": os.path.join(folder, hub_job.SECRET),
        "manifest": path,
    }


def seeded(params: Params, snapshot: Snapshot) -> hub_snapshot.Manifest:
    """The seeder's manifest of a snapshot."""
    for manifest in map(hub_snapshot.Manifest.read, params["seeder_manifests"]):
        if (manifest.repo_id, manifest.revision) == (snapshot.repo_id, snapshot.revision):
            return manifest
    raise Failed(f"{params['seeder']['name']} does not have {snapshot.repo_id} at {snapshot.revision} yet.")


def environment(params: Params, world: World, folder: str) -> str:
    """The job's environment file. The token has its own file and is not in here."""
    values = {
        "PYTHONPATH": folder,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HOME": params["home"],
        "HF_HUB_CACHE": hub_snapshot.Cache(params["home"]).hub,
        "HF_ENDPOINT": params["endpoint"],
        "HF_TOKEN_PATH": params["token_path"],
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    for name in PASSED_ON:
        values.update({key: world.environment[key] for key in (name, name.lower()) if world.environment.get(key)})
    if params["ca_path"]:
        values["SSL_CERT_FILE"] = params["ca_path"]
    escaped = {key: value.replace("\\", "\\\\").replace('"', '\\"') for key, value in values.items()}
    return "".join(f'{key}="{value}"\n' for key, value in escaped.items())


# -- progress and result ----------------------------------------------------------------------------------------------
def report(params: Params, world: World, targets: Sequence[Target]) -> Result:
    """Wait for a moment, then return the progress or the result."""
    states = {target.unit: units_job.look(world.run, target.unit) for target in targets if target.unit}
    for name in [name for name, state in states.items() if state.state == "running"][:1]:
        states[name] = units_job.wait(world.run, name, params["wait_s"], sleep=world.sleep)
    running = [name for name, state in states.items() if state.state == "running"]
    ended = [target for target in targets if target.unit and target.unit not in running]
    troubles = [text for text in (trouble(params, world, target, states[target.unit]) for target in ended) if text]
    # Report a failed download at once; let a verification end, so that it names every damaged file.
    if troubles and not (running and params["verify"]):
        raise Failed("\n".join(troubles))
    if running:
        progress = "; ".join(f"{label(targets, name)}{status(world, name).line()}" for name in running)
        resume = {"targets": [asdict(target) for target in targets]}
        return {"changed": False, "done": False, "progress": progress, "resume": resume}
    for name in states:
        units_job.forget_ended(world.run, name)
    found = [hub_snapshot.look(params["home"], target.pinned) for target in targets]
    changed = [bool(target.unit) and status(world, target.unit).changed for target in targets]
    result = {**done(found, changed), "diff": diff(found, [present.commit for present in found], changed)}
    result["fetch_seconds"] = hub_cache.fetch_seconds(found, world.folder)
    if params["verify"]:
        result["progress"] += ", and the hash of every file is right"
    return result


def label(targets: Sequence[Target], name: str) -> str:
    """The name of the repository, if there are several."""
    return next((f"{t.snapshot.repo_id}: " for t in targets if t.unit == name and len(targets) > 1), "")


def status(world: World, name: str) -> hub_progress.Status:
    try:
        return hub_progress.Status(**json.loads(node_files.read_text(os.path.join(world.folder, name, "status.json"))))
    except (OSError, ValueError, TypeError):
        return hub_progress.Status()


def trouble(params: Params, world: World, target: Target, state: units_job.JobState) -> str:
    """Why the job failed; empty if it succeeded."""
    job_status = status(world, target.unit)
    failed = state.state == "failed" or job_status.error
    if not failed and hub_snapshot.look(params["home"], target.pinned).complete:
        return ""
    if state.state == "absent" and not job_status.error:
        return f"The download of {target.snapshot.repo_id} was stopped before its end. Its files on disk were kept."
    log = units_job.log_tail(world.run, target.unit, lines=12) if not job_status.error else []
    units_job.forget_ended(world.run, target.unit)
    reason = job_status.error or "; ".join(log[-3:]) or f"it ended with {state.result} {state.exit_status}"
    return f"{reason.rstrip('.')}. Its log: journalctl -u {target.unit}"


def done(found: Sequence[Found], changed: Sequence[bool]) -> Result:
    rows = [
        {"repo_id": o.snapshot.repo_id, "revision": o.commit, "path": o.path, "bytes": o.bytes, "changed": c}
        for o, c in zip(found, changed)
    ]
    total = words.size(sum(present.bytes for present in found))
    return {"changed": any(changed), "done": True, "progress": f"{total} of weights are on disk", "snapshots": rows}


def diff(found: Sequence[Found], commits: Sequence[str], changed: Sequence[bool] = ()) -> dict[str, str]:
    before = [f"{o.snapshot.repo_id} {o.commit}\n" for o in found if o.complete]
    after = [f"{o.snapshot.repo_id} {commit}\n" for o, commit in zip(found, commits)]
    if changed:
        before = [line for line, new in zip(after, changed) if not new]
    return {"before": "".join(before), "after": "".join(after)}
