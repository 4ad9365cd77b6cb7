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
  - gpunode.llm.reads_only
description:
  - Says for each model on each host whether it fits, how it would be spread, how long its context is, and how long its
    weights take to download.
  - Plans each model alone. Use M(gpunode.llm.serving_plan) for what one host serves together.
  - Changes nothing.
options:
  models:
    description: Models as M(gpunode.llm.serving_plan) takes them; V(all) stands for the whole catalogue.
    type: list
    elements: raw
    default: [all]
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
  objective:
    description: What a plan is good at, V(throughput), V(latency) or V(context).
    type: str
    default: throughput
  engine:
    description: The vLLM release. The newest of the catalogue where it is not set.
    type: str
  max_model_len:
    description: The context in tokens, such as V(32768) or V(32K). The longest that fits where it is not set.
    type: str
  gpu_memory_utilization:
    description: The share of each GPU's memory that an engine takes.
    type: str
  kv_cache_dtype:
    description: The precision of the KV cache, such as V(auto) or V(fp8).
    type: str
  extra_models:
    description: Models beyond the catalogue, in the form of C(catalog/models.yml).
    type: dict
    default: {}
  extra_gpus:
    description: GPUs beyond the catalogue, in the form of C(catalog/gpus.yml).
    type: dict
    default: {}
  extra_engines:
    description: Engine releases beyond the catalogue, by version, in the form of C(catalog/engines).
    type: dict
    default: {}
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
  ansible.builtin.debug:
    var: compared.table

- name: Compare two hosts that are for rent
  gpunode.llm.serving_matrix:
    models: [70b, 70b-fp8]
    gpus: 4xH100/8xL40S
  delegate_to: localhost
"""

RETURN = r"""
table:
  description: The table as lines of text.
  returned: success
  type: list
  elements: str
rows:
  description: The same as data.
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
    download_bytes:
      description: Size of the weights.
      type: int
    download_minutes:
      description: How long they take to download.
      type: float
notes:
  description: What to know about the GPUs of the hosts.
  returned: success
  type: list
  elements: str
"""
