# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_figures_info
short_description: Ask an image's vLLM what a model takes, by its config.json alone
version_added: 1.0.0
description:
  - Builds each model on torch's meta device, in a container of its image, and returns what the engine counts. That
    needs no weights, no memory for them and no network, and takes 10 to 60 seconds each.
  - Downloads no image, and does not fail where one cannot be asked. RV(figures) then holds the reason.
  - Changes nothing.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  units:
    description:
      - What to ask. Each is a dictionary of C(image), C(options) (vLLM's configuration), C(config) (the content of the
        model's config.json), C(hf_quant_config) (that of hf_quant_config.json, if there is one) and C(gpus) (their
        names for the container toolkit).
    type: list
    elements: dict
    required: true
  timeout_s:
    description: The longest time that one container may take, in seconds.
    type: int
    default: 300
seealso:
  - module: gpunode.llm.vllm_config_check
  - module: gpunode.llm.serving_matrix
"""

EXAMPLES = r"""
- name: Ask an image about a model
  gpunode.llm.vllm_figures_info:
    units:
      - image: vllm/vllm-openai:v0.33.0
        options: {max-model-len: 32768}
        config: "{{ lookup('ansible.builtin.file', 'config.json') | from_json }}"
        gpus: [0]
"""

RETURN = r"""
figures:
  description:
    - The answers, in the order of O(units). Each is a dictionary of C(weights_bytes) (int, on one GPU),
      C(request_bytes) (int, KV cache of one request of the longest context on one GPU; null if the engine chooses it),
      C(max_model_len) (int, in tokens) and C(device) (str, V(cuda) or V(cpu), what the engine sees).
    - C(cannot) (str) in their place says why the engine could not be asked.
  type: list
  elements: dict
  returned: always
"""

import json
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.image import container
from ..module_utils.instance import names
from ..module_utils.node import files as node_files

#: The exit code of the command timeout.
TIMED_OUT = 124


def written(folder, unit):
    """Lay the model's files and vLLM's configuration into a folder. Returns the unit as the container takes it."""
    config, model = os.path.join(folder, "engine.yaml"), os.path.join(folder, "model")
    files = {config: unit["options"], os.path.join(model, "config.json"): unit["config"]}
    if unit.get("hf_quant_config"):
        files[os.path.join(model, "hf_quant_config.json")] = unit["hf_quant_config"]
    for path, content in files.items():
        node_files.write_atomically(path, json.dumps(content), power_cut=False)  # JSON is YAML, too
    where = {"config": config, "weights": model, "weights_target": names.MODEL_TARGET}
    return {**where, "image": unit["image"], "gpus": unit.get("gpus")}


def missing(module, docker, image):
    """Why there is no such image to ask, in a sentence; empty if there is one."""
    if not docker:
        return "there is no Docker"
    rc, _out, err = module.run_command([docker, "image", "inspect", "--format={{.Id}}", image])
    if rc == 0:
        return ""
    if "no such image" in err.lower():
        return f"{image} is not there, and is not downloaded for this: docker pull {image}"
    return f"Docker does not answer: {container.complaint(err)}"


def answer(module, docker, unit):
    """The answer of one image."""
    cannot = missing(module, docker, unit["image"])
    if cannot:
        return {"cannot": cannot}
    with tempfile.TemporaryDirectory(prefix="gpunode-", dir=module.tmpdir) as folder:
        command = container.command(docker, module.params["timeout_s"], written(folder, unit))
        rc, out, err = module.run_command(command)
    if rc == 0:
        return container.answer_of(out)
    if rc == TIMED_OUT:
        return {"cannot": f"{unit['image']} did not answer within {module.params['timeout_s']} s"}
    return {"cannot": f"{unit['image']} does not take what is planned: {container.complaint(err or out)}"}


def main():
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "required": True},
            "timeout_s": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # the files are for root in the container, which may not read those of another user otherwise
    docker = module.get_bin_path("docker")
    module.exit_json(changed=False, figures=[answer(module, docker, unit) for unit in module.params["units"]])


if __name__ == "__main__":
    main()
