# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: model_info
short_description: Ask a node the first question of a play, and what models are that only their names tell of
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
description:
  - Says what M(gpunode.llm.node_info) says, and besides what each of O(models) is. The node asks the hub for
    config.json, for the listing of the files and for whether the repository is gated. What was fetched to the node
    before is read there, and the hub is not asked.
  - Never fails for want of a hub or a model. Why a model is not known is said in RV(models).
options:
  lock:
    description:
      - Take the node for a play, as M(gpunode.llm.node_lock) does. Where another play has it, only that is reported.
    type: dict
  nonce:
    description: A random text of this play, under which digests are sealed. Without one, C(answers) is empty.
    type: str
  models:
    description:
      - The models, as dictionaries of C(name), and C(repo_id) and C(revision), or the path of a C(folder) on the node.
    type: list
    elements: dict
    required: true
  home:
    description: The folder that the hub's tools call E(HF_HOME), in which fetched weights lie.
    type: path
    default: /var/lib/huggingface
  endpoint:
    description: The hub, or a mirror of it.
    type: str
    default: https://huggingface.co
  source:
    description: A folder on the node that stands in for the hub, as M(gpunode.llm.hf_snapshot) takes it.
    type: path
  token:
    description: The token for questions to the hub. Without it the one in O(token_path) is used.
    type: str
  token_path:
    description: The file that holds the token, if there is one.
    type: path
    default: /etc/huggingface/token
  ca_path:
    description: A bundle of certificate authorities to trust instead of the system's own.
    type: path
  update:
    description: Ask the hub again which commit a branch stands for.
    type: bool
    default: false
seealso:
  - module: gpunode.llm.node_info
  - module: gpunode.llm.serving_plan
"""

EXAMPLES = r"""
- name: Ask the node, and what a model is
  gpunode.llm.model_info:
    models:
      - name: Qwen/Qwen3-32B
        repo_id: Qwen/Qwen3-32B
        revision: main
  register: node
"""

RETURN = r"""
models:
  description:
    - Each of O(models) by its C(name). C(revision) is the commit, C(branch) the name that it was resolved from,
      C(config) what is in config.json, C(files) the size of each file, and C(shards) the files that the C(index) of its
      weights names. C(hf_quant_config) is what is in the file of that name, where config.json has no
      C(quantization_config).
    - Or C(refused), a sentence that says why that is not known, and in C(kind) a word for it, such as V(unreachable).
  returned: where the node is this play's
  type: dict
gpus:
  description: This and the rest is what M(gpunode.llm.node_info) returns.
  returned: where the node is this play's
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.hub import named as hub_named
from ..module_utils.node import first as node_first


def main() -> None:
    options = {**node_first.OPTIONS, **hub_named.OPTIONS}
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    module.exit_json(**node_first.answer(module, lambda: hub_named.answer(module.params)))


if __name__ == "__main__":
    main()
