# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# This is a virtual module: it is implemented as an action plugin, since the catalogue lies on the controller.

DOCUMENTATION = r"""
module: serving_matrix
short_description: Compare models and GPU hosts
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.planning
  - gpunode.llm.reads_only
description:
  - Reports for each model and each host whether the model fits, its layout over the GPUs, the length of its context,
    and how long the download of its weights takes.
  - Plans each model alone. With O(together) it plans all models side by side, as M(gpunode.llm.serving_plan) does.
  - Changes nothing.
options:
  models:
    description: The models, as M(gpunode.llm.serving_plan) takes them. V(all) means all models of the catalogue.
    type: list
    elements: raw
    default: [all]
  together:
    description:
      - Whether to plan all O(models) side by side on each host. Each model then gets its own GPUs, as with
        M(gpunode.llm.serving_plan), and RV(sums) has the totals.
    type: bool
    default: false
  gpus:
    description:
      - The hosts to plan for. Use V(8xH100) for one host, V(8xH100/4xL40S) for several, V(all) for every host of the
        catalogue, or a list of GPUs for one host.
      - Without it, the module reads the GPUs of the node with one call of M(gpunode.llm.gpu_info).
    type: raw
  link_mbit_s:
    description: The speed of the download in megabits per second.
    type: float
    default: 1000
  exact:
    description:
      - Whether to ask the image of each planned engine what vLLM itself counts for the model, with
        M(gpunode.llm.vllm_figures_info) on the node. RV(rows) and RV(text) then have both. With O(gpus) only engines on
        the CPU are asked about, since an engine counts for the GPUs that it sees.
    type: bool
    default: false
  fail_on_findings:
    description: Whether to fail if an option is wrong, such as unknown GPUs. Otherwise RV(findings) reports it.
    type: bool
    default: true
attributes:
  action:
    description: Runs on the controller and calls M(gpunode.llm.gpu_info) on the node.
    support: full
seealso:
  - module: gpunode.llm.serving_plan
"""

EXAMPLES = r"""
- name: Compare all models on this node
  gpunode.llm.serving_matrix:
  register: compared

- name: Show the comparison
  gpunode.llm.show:
    text: "{{ compared.text }}"

- name: Compare two hosts without a node
  gpunode.llm.serving_matrix:
    models: [70b, 70b-fp8]
    gpus: 4xH100/8xL40S
  delegate_to: localhost

- name: See two models side by side
  gpunode.llm.serving_matrix:
    models: [8b, 70b-fp8]
    together: true
    gpus: 4xH100
  delegate_to: localhost
"""

RETURN = r"""
findings:
  description: Why there is no comparison, with O(fail_on_findings=false).
  returned: success
  type: list
  elements: str
text:
  description: The whole report as lines of at most 100 characters.
  returned: success
  type: list
  elements: str
schema:
  description: The version of the format of RV(rows).
  returned: success
  type: int
rows:
  description: The report as data. With O(together), a host where the models do not fit has no rows.
  returned: success
  type: list
  elements: dict
  contains:
    model:
      description: The model.
      type: str
    host:
      description: The host.
      type: str
    fits:
      description: Whether the model fits.
      type: bool
    reason:
      description: Why the model does not fit.
      type: str
    layout:
      description: The layout of the model over the GPUs, in words.
      type: str
    tensor_parallel_size:
      description: The number of GPUs that share each layer.
      type: int
    pipeline_parallel_size:
      description: The number of stages that the layers are divided into.
      type: int
    data_parallel_size:
      description: The number of replicas.
      type: int
    nodes:
      description:
        - How many such hosts one engine of the model runs over. If the model does not fit one, how many would hold it;
          V(0) if up to four do not, or if that is not the reason.
      type: int
    max_model_len:
      description: The context in tokens.
      type: int
    kv_cache_tokens:
      description: The number of tokens that the KV caches of all replicas hold.
      type: int
    gpu_indices:
      description: The indices of the GPUs, with O(together).
      type: list
      elements: int
    exact:
      description:
        - What the engine in C(image) counts on one GPU, with O(exact), C(weights_gib) and C(request_bytes) (KV cache of
          one request of the longest context; null if the engine chooses the context), and the plan's figures,
          C(planned_weights_gib) and C(planned_request_bytes). C(cannot) in their place says why the engine was not
          asked.
      type: dict
    auto_draft:
      description:
        - What C(speculative=auto) would take from the catalogue, in words. Empty where there is nothing, or where
          something proposes tokens.
      type: str
    preset:
      description: The preset that is taken. Empty without one.
      type: str
    preset_gain:
      description: What that preset gained, and by which measurement, in words.
      type: str
    faster_weights:
      description:
        - The other weights of the same model that were measured to be faster on these GPUs, and what they would give,
          in words. Empty where C(weights=fastest) would change nothing.
      type: str
    notes:
      description:
        - What else there is to say of presets and other weights, such as a preset that was left out. With O(together)
          it is in the notes of all rows.
      type: list
      elements: str
    download_bytes:
      description: The size of the weights in bytes, with adapters and a draft.
      type: int
    download_minutes:
      description: How many minutes the download of the weights takes.
      type: float
sums:
  description: The totals of each host, with O(together).
  returned: success
  type: list
  elements: dict
  contains:
    host:
      description: The host.
      type: str
    title:
      description: The GPUs of the host, in words.
      type: str
    gpus:
      description: The number of GPUs of the host.
      type: int
    images:
      description: The container images.
      type: list
      elements: str
    download_bytes:
      description: The size of the weights in bytes. A revision counts once.
      type: int
    image_download_bytes:
      description: The approximate download size of the images in bytes.
      type: int
    image_disk_bytes:
      description: The approximate size of the images on the disk in bytes.
      type: int
    download_minutes:
      description: How many minutes the download of weights and images takes.
      type: float
    findings:
      description: Why the models do not fit side by side. Empty if they fit.
      type: list
      elements: str
    notes:
      description: Remarks on the host.
      type: list
      elements: str
notes:
  description: Remarks on the GPUs of the hosts, and on models that are planned side by side.
  returned: success
  type: list
  elements: str
"""
