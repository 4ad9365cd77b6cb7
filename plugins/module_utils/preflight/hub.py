# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight asks other hosts: the hub, and the Python package index for the hub's client."""

from __future__ import annotations

from typing import Sequence

from ..hub.api import Hub, HubError, Opener
from ..hub.folder import Folder
from ..hub.snapshot import Snapshot
from ..node.web import without_password
from .checks import HubCheck


def check_hub(hub: Hub | Folder, snapshots: Sequence[Snapshot], token_is_new: bool) -> HubCheck:
    """Check the token, then each repository. Asks nothing if nothing must be downloaded and the token is known."""
    account, findings, trees = "", [], {}
    if not snapshots and not (token_is_new and hub.token):
        return HubCheck((), {})
    try:
        if hub.token:
            account = hub.account()
        for snapshot in snapshots:
            try:
                hub.check_access(snapshot, account)
                commit = hub.commit(snapshot)
                trees[snapshot] = (commit, hub.tree(snapshot, commit))
            except HubError as refusal:
                if refusal.kind == "unreachable":
                    raise
                findings.append(str(refusal))
    except HubError as trouble:
        findings.append(str(trouble))
    return HubCheck(findings, trees, account)


def check_index(index: str, opener: Opener) -> list[str]:
    """Check that a Python package index has the hub's client, with the request that pip would send."""
    shown = without_password(index)
    answer = opener("GET", f"{index.rstrip('/')}/huggingface-hub/", {"Accept": "text/html, */*"})
    problem = f"cannot be reached: {answer.reason}" if answer.status == 0 else f"answers {answer.status}"
    if 200 <= answer.status < 400:
        return []
    return [
        f"The Python package index {shown} {problem} for huggingface-hub, the client that downloads the weights. Set"
        f" huggingface_pip_index_url to one that has it."
    ]
