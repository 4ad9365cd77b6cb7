# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: brought
short_description: Record which images and models the collection downloaded to a node
version_added: 1.0.0
description:
  - Notes names, strikes them out, and tells which are noted. With neither O(images) nor O(models) it only tells.
  - M(gpunode.llm.image_pull) and M(gpunode.llm.hf_snapshot) note what they are about to fetch by themselves, and
    M(gpunode.llm.hf_cache_prune) strikes out what it removes.
  - The notes lie in one JSON file, which is gone when nothing is noted any more.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Says what would be noted or struck out, and tells the names as they would be.
    support: full
  diff_mode:
    description: Shows the names before and after.
    support: full
options:
  images:
    description: Images, by the names under which they were fetched.
    type: list
    elements: str
    default: []
  models:
    description: Repositories of models, such as V(org/name).
    type: list
    elements: str
    default: []
  state:
    description: V(present) notes the names, V(absent) strikes them out.
    type: str
    choices: [present, absent]
    default: present
  path:
    description: The file.
    type: path
    default: /var/lib/gpunode/brought.json
"""

EXAMPLES = r"""
- name: See what the collection brought
  gpunode.llm.brought:
  register: brought

- name: Forget an image that is gone
  gpunode.llm.brought:
    images: [vllm/vllm-openai:v0.33.0]
    state: absent
"""

RETURN = r"""
images:
  description: The images that are noted.
  type: list
  elements: str
  returned: success
models:
  description: The repositories that are noted.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.node import brought as node_brought


def lines(names):
    return "".join(f"{name}\n" for kind in node_brought.KINDS for name in names[kind])


def main():
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "list", "elements": "str", "default": []},
            "models": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "path": {"type": "path", "default": node_brought.PATH},
        },
        supports_check_mode=True,
    )
    given, path = {kind: module.params[kind] for kind in node_brought.KINDS}, module.params["path"]
    present = module.params["state"] == "present"
    try:
        before = node_brought.read(path)
        after = node_brought.changed(before, given if present else {}, {} if present else given)
        if after != before and not module.check_mode:
            node_brought.write(after, path)
    except (ValueError, OSError) as error:
        module.fail_json(msg=f"{error}.")
    module.exit_json(changed=after != before, **after, diff={"before": lines(before), "after": lines(after)})


if __name__ == "__main__":
    main()
