# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: model_info
short_description: Collect the state of a node at the start of a play, and facts about models that are given by name
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
description:
  - Returns the result of M(gpunode.llm.node_info), and in addition facts about each of O(models). The node asks the hub
    for config.json, for the list of files and for whether the repository is gated. If the node already has the
    model's files, the module reads them and does not ask the hub.
  - Does not fail if the hub does not answer or a model does not exist. RV(models) then holds the reason.
options:
  lock:
    description:
      - The run that locks the node, as for M(gpunode.llm.node_lock). If another run holds the lock, the module returns
        only RV(ignore:lock).
    type: dict
  nonce:
    description: A random text of this play, which seals the digests. If not set, C(answers) is empty.
    type: str
  models:
    description:
      - The models. Each is a dictionary with C(name), and with either C(repo_id) and C(revision), or C(folder), a path
        on the node.
    type: list
    elements: dict
    required: true
  home:
    description: The folder that the hub tools call E(HF_HOME). It holds the downloaded weights.
    type: path
    default: /var/lib/huggingface
  endpoint:
    description: The URL of the hub or of a mirror of it.
    type: str
    default: https://huggingface.co
  source:
    description: A folder on the node to use in place of the hub, as for M(gpunode.llm.hf_snapshot).
    type: path
  token:
    description: The token for the hub. If not set, the module uses the token in O(token_path).
    type: str
  token_path:
    description: The file of the token. It need not exist.
    type: path
    default: /etc/huggingface/token
  ca_path:
    description: A file (PEM) of certificate authorities to trust instead of those of the system.
    type: path
  update:
    description: Whether to ask the hub again for the commit of a branch.
    type: bool
    default: false
seealso:
  - module: gpunode.llm.node_info
  - module: gpunode.llm.serving_plan
"""

EXAMPLES = r"""
- name: Collect the state of the node and the facts about a model
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
    - The facts about each of O(models), by its C(name). C(revision) is the commit, C(branch) the branch or tag that it
      was resolved from, C(config) the content of config.json, C(files) the size of each file in bytes, and C(shards)
      the files that the C(index) of the weights names. C(hf_quant_config) is the content of hf_quant_config.json, if
      config.json has no C(quantization_config). C(adapter_config) is the content of adapter_config.json, if there is
      one.
    - If the facts are not known, the model has only C(refused), a sentence with the reason, and C(kind), the kind of
      the reason, such as V(unreachable).
  returned: unless another run holds the lock
  type: dict
gpus:
  description: The GPUs. This key and the others are those of M(gpunode.llm.node_info).
  returned: unless another run holds the lock
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
