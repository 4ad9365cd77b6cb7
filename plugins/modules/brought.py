# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: brought
short_description: Record which images and models the collection downloaded to a node
version_added: 1.0.0
description:
  - Adds names to the record or removes them from it, and returns all names in the record. Without O(images) and
    O(models) it only returns them.
  - M(gpunode.llm.image_pull) and M(gpunode.llm.hf_snapshot) add a name before they download it.
    M(gpunode.llm.hf_cache_prune) removes the names of the models that it deletes.
  - The record is a JSON file. The module deletes the file when no name is left.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Returns the names as they would be after the change, and writes nothing.
    support: full
  diff_mode:
    description: Shows the names before and after.
    support: full
options:
  images:
    description: The images, by the names under which they were downloaded.
    type: list
    elements: str
    default: []
  models:
    description: The repositories of the models, such as V(org/name).
    type: list
    elements: str
    default: []
  state:
    description: V(present) adds the names to the record, V(absent) removes them.
    type: str
    choices: [present, absent]
    default: present
  path:
    description: The file of the record.
    type: path
    default: /var/lib/gpunode/brought.json
"""

EXAMPLES = r"""
- name: List what the collection downloaded
  gpunode.llm.brought:
  register: brought

- name: Remove the name of a deleted image
  gpunode.llm.brought:
    images: [vllm/vllm-openai:v0.33.0]
    state: absent
"""

RETURN = r"""
images:
  description: The images in the record.
  type: list
  elements: str
  returned: success
models:
  description: The repositories of models in the record.
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
