# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# This is a virtual module: it is implemented as an action plugin, since the catalogue lies on the controller.

DOCUMENTATION = r"""
module: serving_plan
short_description: Decide what a GPU host serves, and explain it
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.planning
  - gpunode.llm.reads_only
description:
  - Checks GPU count and type against a model and returns a plan. For each model it says which GPUs, how they share the
    work, how long the context is, how many tokens the KV cache holds, and the configuration that vLLM is started with.
  - Asks the node for its GPUs by one call of M(gpunode.llm.gpu_info), or plans without any node where O(gpus) is given.
  - Fails in one message that holds everything that stands against the plan, with numbers and with what would work.
  - Changes nothing. With O(lock_timeout_s) the node is this play's from then on.
options:
  model:
    description:
      - The model to serve, by its key in the catalogue, by any repository of the Hugging Face hub as V(ORG/NAME) or
        V(ORG/NAME@REVISION), or by the path of a folder on the node.
    type: str
  models:
    description:
      - The models to serve when there are several, instead of O(model).
      - Each is a name, or a dictionary of C(model), C(name), C(port), C(gpu_indices), C(served_model_name) and any
        option of this module that is about one engine.
      - Instances are planned in the order of their names, whatever their order here. One that the node has already
        keeps its port, and its GPUs as far as there is room.
    type: list
    elements: raw
    default: []
  gpus:
    description:
      - GPUs to plan for instead of the node's own, as V(8xH100), or as a list of dictionaries with C(name), C(count),
        C(memory_mib) and C(compute_capability). The last two are needed only for GPUs that the catalogue does not know.
    type: raw
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
    description: Whether to fail when something stands against the plan. Otherwise RV(findings) holds it.
    type: bool
    default: true
  gather_facts:
    description:
      - Whether to make facts of what M(gpunode.llm.gpu_info) tells of the node's system, for a play with
        C(gather_facts=false) whose roles want to know distribution, architecture, name and systemd.
    type: bool
    default: false
  lock_timeout_s:
    description:
      - Take the node for this play before it is asked, as M(gpunode.llm.node_lock) does, and wait so many seconds for
        another play that has it. Takes nothing where it is not set, and nothing in check mode.
    type: float
attributes:
  action:
    description:
      - Runs on the controller and calls M(gpunode.llm.gpu_info) on the node, unless O(gpus) describes its GPUs and
        neither facts nor the lock are wanted.
    support: full
seealso:
  - module: gpunode.llm.gpu_info
"""

EXAMPLES = r"""
- name: Plan for the GPUs of this node
  gpunode.llm.serving_plan:
    model: 405b-fp8
  register: decided

- name: Show what vLLM is started with
  ansible.builtin.debug:
    var: decided.plan.instances[0].config

- name: Plan without any node
  gpunode.llm.serving_plan:
    model: 70b
    gpus: 4xH100
    objective: latency
  delegate_to: localhost

- name: Serve two models, and one that the catalogue has not seen
  gpunode.llm.serving_plan:
    models:
      - 70b
      - model: mine
        port: 9000
        max_model_len: 16K
    extra_models:
      mine:
        repo_id: example/Mine-7B
        config:
          hidden_size: 4096
          intermediate_size: 14336
          num_hidden_layers: 32
          num_attention_heads: 32
          num_key_value_heads: 8
          vocab_size: 32000
          max_position_embeddings: 32768
"""

RETURN = r"""
plan:
  description: What to run; null where there are findings.
  returned: always
  type: dict
  contains:
    instances:
      description: One per engine, in the order of their names.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the instance, fit for a unit and a container.
          type: str
        model:
          description: Key in the catalogue.
          type: str
        repo_id:
          description: Repository on the Hugging Face hub.
          type: str
        revision:
          description: Commit of the repository; null where the catalogue knows none.
          type: str
        image:
          description: Container image.
          type: str
        device:
          description: V(cuda) or V(cpu).
          type: str
        gpu_indices:
          description: GPUs of this instance, by their present indices.
          type: list
          elements: int
        gpu_uuids:
          description: The same by their UUIDs; empty where these are unknown, or containers cannot have GPUs by them.
          type: list
          elements: str
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
        weights_gib_per_gpu:
          description: Weights on the fullest GPU, in GiB.
          type: float
        model_context:
          description: Context that the model itself has, in tokens.
          type: int
        precision:
          description: How its weights are stored, such as V(BF16) or V(FP8).
          type: str
        kv_cache_tokens:
          description: Tokens that the KV caches of all replicas hold.
          type: int
        config:
          description: Content of vLLM's configuration file.
          type: dict
        env:
          description: Environment of the engine, without any secret.
          type: dict
        host:
          description: Address on the node under which the endpoint is published.
          type: str
        port:
          description: Port of the endpoint.
          type: int
        port_base:
          description: The port that ports are counted from, which the unit keeps in mind.
          type: int
        served_model_name:
          description: The name that clients use.
          type: str
        weights_bytes:
          description: Size of the weights on the disk.
          type: int
        gated:
          description: Whether the hub asks for a token and an accepted licence.
          type: bool
        ignore_patterns:
          description: Files of the repository that are not needed.
          type: list
          elements: str
        allow_patterns:
          description: All that is fetched of the repository, where something is said of it.
          type: list
          elements: str
        branch:
          description: The branch or tag that the revision was resolved from, where the user named one.
          type: str
        folder:
          description: The folder on the node that holds the model, in place of a repository.
          type: str
        start_timeout_s:
          description: How long a start may take, from the bytes to load.
          type: int
        shm_size:
          description: Shared memory of the container.
          type: str
        warnings:
          description: What to know about this instance.
          type: list
          elements: str
    warnings:
      description: What to know about the plan.
      type: list
      elements: str
    rejected:
      description: What was not chosen, with C(instance), C(choice), C(reason), and C(gain), what it would be better at.
      type: list
      elements: dict
findings:
  description: Everything that stands against the plan, each in a sentence.
  returned: always
  type: list
  elements: str
ansible_facts:
  description: What the node's system is.
  returned: where O(gather_facts) is true
  type: dict
unlisted:
  description: Engines of this collection that the node has and the plan has not, by their instances' names.
  returned: always
  type: list
  elements: str
engines:
  description: The engines that the node has, as M(gpunode.llm.gpu_info) returns them.
  returned: always
  type: list
  elements: dict
gpus:
  description: The GPUs that were planned for, as M(gpunode.llm.gpu_info) returns them.
  returned: always
  type: list
  elements: dict
"""
