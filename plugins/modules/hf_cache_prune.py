# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: hf_cache_prune
short_description: Remove old revisions of models from the Hugging Face cache of a node
version_added: 1.0.0
description:
  - Removes the revisions that are not in use, and the files that no other revision uses. A file stays if another
    revision or another repository shares it.
  - A revision stays if O(snapshots) lists it, if a branch points to it, or if a systemd unit on the node names it. The
    name can be in the unit file, in a drop-in file, or in the configuration of an instance of the role vllm. A unit
    that names a repository without a commit keeps all revisions of the repository.
  - With O(unlisted), a branch does not keep a revision if this collection downloaded the repository and no unit names
    it.
  - It uses no network and starts no program.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Reports which revisions would be removed and how many bytes that frees.
    support: full
  diff_mode:
    description: Shows the list of revisions before and after.
    support: full
options:
  snapshots:
    description: The snapshots that always stay, as M(gpunode.llm.hf_snapshot) takes them.
    type: list
    elements: dict
    default: []
  home:
    description: The folder that the hub tools call E(HF_HOME).
    type: path
    default: /var/lib/huggingface
  unlisted:
    description: Whether to also remove repositories with no revision in use. Otherwise they stay.
    type: bool
    default: false
seealso:
  - module: gpunode.llm.hf_cache_info
"""

EXAMPLES = r"""
- name: Remove the revisions that an update replaced
  gpunode.llm.hf_cache_prune:
"""

RETURN = r"""
removed:
  description: The revisions that the module removed, or would remove in check mode.
  type: list
  elements: dict
  returned: success
  contains:
    repo_id:
      description: The repository.
      type: str
    revision:
      description: The commit.
      type: str
kept:
  description: The revisions that stay.
  type: list
  elements: dict
  returned: success
  contains:
    repo_id:
      description: The repository.
      type: str
    revision:
      description: The commit.
      type: str
    reason:
      description: Why the revision stays.
      type: str
bytes_freed:
  description: The total size of the removed files, or of those that check mode would remove.
  type: int
  returned: success
summary:
  description: A summary in one line.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.hub import prune as hub_prune, snapshot as hub_snapshot
from ..module_utils.node import brought as node_brought, words


def lines(revisions):
    return "".join(f"{revision.repo_id} {revision.commit}\n" for revision in revisions)


def main():
    module = AnsibleModule(
        argument_spec={
            "snapshots": {"type": "list", "elements": "dict", "default": []},
            "home": {"type": "path", "default": "/var/lib/huggingface"},
            "unlisted": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    home = module.params["home"]
    try:
        requests = hub_snapshot.parse_snapshots(module.params["snapshots"])
        downloaded = node_brought.read(node_brought.PATH)["models"]
        plan = hub_prune.make_plan(home, requests, hub_prune.unit_texts(), module.params["unlisted"], downloaded)
        if not module.check_mode:
            hub_prune.remove(home, plan)
            node_brought.forget(node_brought.PATH, models=plan.whole)
    except (ValueError, OSError) as trouble:
        module.fail_json(msg=str(trouble))
    kept = [revision for revision in plan.revisions if revision.kept]
    verb = "would be removed" if module.check_mode else "removed"
    module.exit_json(
        changed=bool(plan.old),
        removed=[{"repo_id": revision.repo_id, "revision": revision.commit} for revision in plan.old],
        kept=[{"repo_id": revision.repo_id, "revision": revision.commit, "reason": revision.kept} for revision in kept],
        bytes_freed=plan.freed,
        summary=f"{len(plan.old)} old revisions {verb}, {words.size(plan.freed)}; {len(kept)} stay",
        diff={"before": lines(plan.revisions), "after": lines(kept)},
    )


if __name__ == "__main__":
    main()
