# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_config_check
short_description: Ask an image's vLLM about a configuration before a service is stopped
version_added: 1.0.0
description:
  - Runs the parser of C(vllm serve) over each configuration, in a container of the image that will serve it, and builds
    the model on torch's meta device. That needs no weights in memory and no network, and takes 10 to 30 seconds.
  - Compares what the engine counts with the plan, and refuses a plan that has no room for the model's weights and one
    request of the planned context. The memory of a request is at least the sum over the engine's layers.
  - A model that cannot be built this way, such as one with pipeline stages, is started as planned.
  - Checks only units that run. A unit that starts for the first time reports its own errors.
  - Changes nothing.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  units:
    description:
      - The units. Each is a dictionary of C(name), C(config) (the path of the configuration), C(files) (the paths of
        all files that the unit reads at its start) and C(image), which must be on the node; for the engine's figures
        also C(weights) and C(weights_target) (the folder of the weights, on the node and in the container), likewise
        C(cached) and C(cached_target) (the hub's cache, where adapters or a draft are in it and the weights are not),
        C(gpus) (their names for the container toolkit), C(cpu) (bool) and C(planned) (C(weights_gib_per_gpu) and
        C(kv_cache_gib_per_gpu), in GiB).
      - P(gpunode.llm.vllm_service#filter) returns this list as C(parsed).
      - Other keys are ignored.
    type: list
    elements: dict
    required: true
  changed_files:
    description: The files that changed. Only units that start from one of them are checked.
    type: list
    elements: path
    required: true
  docker:
    description: The path of the Docker client.
    type: path
    default: /usr/bin/docker
  timeout_s:
    description: The longest time that one container may take, in seconds.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Check the configuration with the new release
  gpunode.llm.vllm_config_check:
    units:
      - name: vllm-8b.service
        image: vllm/vllm-openai:v0.33.0
        config: /etc/vllm/8b.yaml
        files: [/etc/vllm/8b.yaml, /etc/vllm/8b.env]
    changed_files: [/etc/vllm/8b.yaml]
"""

RETURN = r"""
checked:
  description: The names of the units whose configuration was accepted.
  type: list
  elements: str
  returned: always
refused:
  description: The name of the unit whose configuration was refused. It runs, and was not stopped.
  type: str
  returned: failure
figures:
  description:
    - What the engine counts for each accepted unit, C(name) (str) with C(weights_bytes) (int, on one GPU),
      C(request_bytes) (int, KV cache of one request of the longest context on one GPU; null if the engine chooses
      the context), C(max_model_len) (int, in tokens) and C(device) (str, V(cuda) or V(cpu), as seen by the engine).
      Figures of one device do not refute a plan for another.
    - C(cannot) (str) instead of them is the reason why the engine could not be asked.
  type: list
  elements: dict
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.image import container

GIB = 1 << 30
#: Plans are rounded to 0.01 GiB.
ROUNDED_GIB = 0.05


def refuted(unit, answer):
    """Why the engine's figures refute the plan, in a sentence; None if they do not."""
    planned, device = unit.get("planned") or {}, "cpu" if unit.get("cpu") else "cuda"
    if "cannot" in answer or len(planned) < 2 or answer.get("device", device) != device:
        return None
    weights, request = answer["weights_bytes"] / GIB, (answer["request_bytes"] or 0) / GIB
    room, needed, what = planned["kv_cache_gib_per_gpu"], request, "the KV cache"
    if not unit.get("cpu"):  # on a GPU, what the weights leave is for the KV cache
        room, needed, what = room + planned["weights_gib_per_gpu"], needed + weights, "both on each GPU"
    if needed <= room + ROUNDED_GIB:
        return None
    return (
        f"{unit['image']} counts {weights:.2f} GiB of weights and {request:.2f} GiB of KV cache for one request of"
        f" {answer['max_model_len']} tokens, the plan has {room:.2f} GiB for {what}"
    )


REMEDY = (
    "set a lower vllm_max_model_len, or correct the model's figures (vllm_weights_bytes, vllm_kv_bytes_per_token) if"
    " you gave them."
)
#: The remedy where the parser refuses an option, before its own sentence.
OTHERWISE = "correct vllm_extra_args, or set an image that takes them (vllm_image, vllm_engine)"


def concerned(module, unit):
    """Whether a unit runs and starts from a file that changed."""
    if not set(unit["files"]) & set(module.params["changed_files"]):
        return False
    return module.run_command(["systemctl", "--quiet", "is-active", unit["name"]])[0] == 0


def check(module, units):
    """The engine's figures for each unit whose configuration is accepted; ends the module at one that is refused."""
    figures = []
    for unit in units:
        rc, out, err = module.run_command(container.command(module.params["docker"], module.params["timeout_s"], unit))
        error = container.complaint(err or out)
        problem, remedy = f"{unit['image']} does not take {unit['config']}", f"{OTHERWISE}: {error}"
        if rc not in (0, container.REFUSED):
            # Another release may have its parser elsewhere. The start of the unit then shows whether it works.
            module.warn(f"{unit['image']} could not be asked about {unit['config']}: {error}")
            continue
        if rc == 0:
            answer = container.answer_of(out)
            problem, remedy = refuted(unit, answer), REMEDY
        if problem:
            names = [accepted["name"] for accepted in figures]
            msg = f"{problem}, so {unit['name']} was not stopped: {remedy}"
            module.fail_json(msg=msg, refused=unit["name"], checked=names, figures=figures, done=True)
        figures.append({"name": unit["name"], **answer})
    return figures


def main():
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "required": True},
            "changed_files": {"type": "list", "elements": "path", "required": True},
            "docker": {"type": "path", "default": "/usr/bin/docker"},
            "timeout_s": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    figures = check(module, [unit for unit in module.params["units"] if concerned(module, unit)])
    module.exit_json(changed=False, checked=[unit["name"] for unit in figures], figures=figures)


if __name__ == "__main__":
    main()
