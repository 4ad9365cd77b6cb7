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
  - Says for each model on each host whether it fits, how it would be spread, how long its context is, and how long its
    weights take to download.
  - Plans each model alone, or with O(together) all of them side by side, as M(gpunode.llm.serving_plan) would.
  - Changes nothing.
options:
  models:
    description: Models as M(gpunode.llm.serving_plan) takes them; V(all) stands for the whole catalogue.
    type: list
    elements: raw
    default: [all]
  together:
    description:
      - Whether O(models) are planned side by side on each host. Each gets GPUs of its own then, as
        M(gpunode.llm.serving_plan) would give them, and RV(sums) has what all of them take.
    type: bool
    default: false
  gpus:
    description:
      - Hosts to plan for. One as V(8xH100) or several as V(8xH100/4xL40S), or V(all), every host of the catalogue, or
        one host as a list of its GPUs.
      - Without it, the node is asked by one call of M(gpunode.llm.gpu_info).
    type: raw
  link_mbit_s:
    description: The speed of the download in megabits per second.
    type: float
    default: 1000
  hub:
    description:
      - How the hub is asked for models that the catalogue does not have, with the keys C(endpoint), C(home), C(source),
        C(token_path), C(ca_path) and C(update), as M(gpunode.llm.model_info) takes them. Other keys are ignored.
      - The host asks in the call that reads its GPUs, in the task's environment; with O(gpus) in a call for that alone.
    type: dict
    default: {}
  hub_token:
    description: The token for these questions.
    type: str
  fail_on_findings:
    description: Whether to fail where an option is of no use, such as unknown GPUs. Otherwise RV(findings) holds it.
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
- name: What fits this node
  gpunode.llm.serving_matrix:
  register: compared

- name: Show it
  gpunode.llm.show:
    text: "{{ compared.text }}"

- name: Compare two hosts that are for rent
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
  description: Why there is nothing to show, with O(fail_on_findings=false).
  returned: success
  type: list
  elements: str
text:
  description: All that there is to say, as lines of at most 100 columns.
  returned: success
  type: list
  elements: str
schema:
  description: The number of the form in which RV(rows) are, for a file of them.
  returned: success
  type: int
rows:
  description: The same as data. None with O(together) for a host where they do not fit.
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
      description: Whether it fits.
      type: bool
    reason:
      description: Why it does not.
      type: str
    layout:
      description: How it is spread.
      type: str
    tensor_parallel_size:
      description: GPUs that share each layer.
      type: int
    pipeline_parallel_size:
      description: Stages that the layers are divided into.
      type: int
    data_parallel_size:
      description: Replicas.
      type: int
    max_model_len:
      description: Context in tokens.
      type: int
    kv_cache_tokens:
      description: Tokens that the KV caches of all replicas hold.
      type: int
    gpu_indices:
      description: The GPUs by their indices, with O(together).
      type: list
      elements: int
    download_bytes:
      description: Size of the weights.
      type: int
    download_minutes:
      description: How long they take to download.
      type: float
sums:
  description: What each host takes, with O(together).
  returned: success
  type: list
  elements: dict
  contains:
    host:
      description: The host.
      type: str
    title:
      description: Its GPUs in words.
      type: str
    gpus:
      description: How many it has.
      type: int
    images:
      description: The images.
      type: list
      elements: str
    download_bytes:
      description: The weights, those of one revision once.
      type: int
    image_download_bytes:
      description: The images as a registry sends them, in round figures.
      type: int
    image_disk_bytes:
      description: The images on the disk, in round figures.
      type: int
    download_minutes:
      description: How long weights and images take to download.
      type: float
    findings:
      description: Why they do not fit side by side, empty where they do.
      type: list
      elements: str
    notes:
      description: What to know about it.
      type: list
      elements: str
notes:
  description: What to know about the GPUs of the hosts, and about what would be served side by side.
  returned: success
  type: list
  elements: str
"""
