# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# This is a virtual module: it is implemented as an action plugin, since the catalogue lies on the controller.

DOCUMENTATION = r"""
module: serving_plan
short_description: Plan how a GPU host serves models
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.planning
  - gpunode.llm.reads_only
description:
  - Compares the models with the number and type of the GPUs and returns a plan. For each model the plan has the GPUs,
    how they share the work, the length of the context, the number of tokens in the KV cache, and the configuration of
    vLLM.
  - Reads the GPUs of the node with one call of M(gpunode.llm.gpu_info). If O(gpus) is set, it plans without a node.
  - If a plan is not possible, it fails with one message that lists all reasons, with numbers and with remedies.
  - Changes nothing on the node, except that O(lock_timeout_s) locks the node for this play.
options:
  model:
    description:
      - The model to serve. It is a key of the catalogue, a repository of the Hugging Face hub as V(ORG/NAME) or
        V(ORG/NAME@REVISION), or the path of a folder on the node.
    type: str
  models:
    description:
      - The models to serve if there are several. Use it instead of O(model).
      - Each element is a name, or a dictionary of C(model), C(name), C(port), C(gpu_indices), C(served_model_name) and
        any option of this module that is about one engine.
      - The module plans the instances in the order of their names, not in the order of this list. An instance that the
        node has already keeps its port, and keeps its GPUs if possible.
    type: list
    elements: raw
    default: []
  gpus:
    description:
      - The GPUs to plan for instead of those of the node. Use a text such as V(8xH100), or a list of dictionaries with
        C(name), C(count), C(memory_mib) and C(compute_capability). The last two are only needed for GPUs that are not
        in the catalogue.
    type: raw
  fail_on_findings:
    description: Whether to fail if the plan is not possible. Otherwise RV(findings) has the reasons.
    type: bool
    default: true
  gather_facts:
    description:
      - Whether to set facts from the system that M(gpunode.llm.gpu_info) reports. This is for a play with
        C(gather_facts=false) whose roles need the distribution, the architecture, the host name and systemd.
    type: bool
    default: false
  driver_comes:
    description:
      - Whether the play is going to install an NVIDIA driver. GPUs that have none yet are then planned for by their
        numbers on the PCI bus, as long as the catalogue has them.
    type: bool
    default: false
  lock_timeout_s:
    description:
      - Lock the node for this play before the module reads it, as M(gpunode.llm.node_lock) does. If another play holds
        the lock, wait up to this number of seconds. Without it, and in check mode, the module takes no lock.
    type: float
attributes:
  action:
    description:
      - Runs on the controller and calls M(gpunode.llm.gpu_info) on the node. It needs no call if O(gpus) is set and
        neither facts nor the lock are requested.
    support: full
seealso:
  - module: gpunode.llm.gpu_info
"""

EXAMPLES = r"""
- name: Plan for the GPUs of this node
  gpunode.llm.serving_plan:
    model: 405b-fp8
  register: decided

- name: Show the configuration of vLLM
  ansible.builtin.debug:
    var: decided.plan.instances[0].config

- name: Plan without a node
  gpunode.llm.serving_plan:
    model: 70b
    gpus: 4xH100
    objective: latency
  delegate_to: localhost

- name: Plan a model of the catalogue and a model of your own
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
  description: The plan. Null if there are findings.
  returned: always
  type: dict
  contains:
    instances:
      description: The instances, one for each engine, in the order of their names.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the instance, valid for a unit and a container.
          type: str
        model:
          description: Key in the catalogue.
          type: str
        repo_id:
          description: Repository on the Hugging Face hub.
          type: str
        revision:
          description: Commit of the repository. Null if the catalogue has none.
          type: str
        image:
          description: Container image.
          type: str
        device:
          description: V(cuda) or V(cpu).
          type: str
        gpu_indices:
          description: Present indices of the GPUs of this instance.
          type: list
          elements: int
        gpu_uuids:
          description: UUIDs of these GPUs. Empty if they are unknown, or if containers cannot select GPUs by UUID.
          type: list
          elements: str
        tensor_parallel_size:
          description: Number of GPUs that share each layer.
          type: int
        pipeline_parallel_size:
          description: Number of stages that the layers are divided into.
          type: int
        data_parallel_size:
          description: Number of replicas.
          type: int
        max_model_len:
          description: Context in tokens.
          type: int
        weights_gib_per_gpu:
          description: Size of the weights on the GPU with the most weights, in GiB.
          type: float
        model_context:
          description: Longest context that the model supports, in tokens.
          type: int
        precision:
          description: Number format of the weights, such as V(BF16) or V(FP8).
          type: str
        kv_cache_tokens:
          description: Number of tokens that the KV caches of all replicas hold.
          type: int
        kv_cache_gib_per_gpu:
          description: Memory for the KV cache on the GPU with the most weights, in GiB; on the CPU, all of it.
          type: float
        kv_request_bytes:
          description: Size of the KV cache of one request of the longest context, in bytes on one GPU.
          type: int
        config:
          description: Content of vLLM's configuration file.
          type: dict
        env:
          description: Environment variables of the engine, without secrets.
          type: dict
        host:
          description: Address on the node that the endpoint listens on.
          type: str
        port:
          description: Port of the endpoint.
          type: int
        port_base:
          description: The first port of the numbering. The unit records it.
          type: int
        served_model_name:
          description: The name that clients use.
          type: str
        weights_bytes:
          description: Size of the weights on the disk, in bytes.
          type: int
        gated:
          description: Whether the hub requires a token and an accepted licence.
          type: bool
        ignore_patterns:
          description: Patterns of files in the repository that are not needed.
          type: list
          elements: str
        allow_patterns:
          description: Patterns of the only files to download, if the catalogue restricts them.
          type: list
          elements: str
        branch:
          description: The branch or tag that was resolved to the revision, if the user named one.
          type: str
        folder:
          description: The folder on the node that holds the model, if there is no repository.
          type: str
        task:
          description:
            - What the model is served for. C(generate), or for a pooling model C(embed), C(rerank), C(classify) or
              C(pooling). It decides which route is asked, and which routes the gateway passes.
          type: str
        gpu_share:
          description: The share of its GPU that it has; null where it has whole GPUs.
          type: float
        starts_after:
          description: The instances on the same GPU that start before it.
          type: list
          elements: str
        lora:
          description:
            - The LoRA adapters that it serves, each with C(name), C(repo_id), C(revision), C(branch), C(gated),
              C(allow_patterns) and C(weights_bytes).
          type: list
          elements: dict
        draft:
          description:
            - The repository that proposes tokens for it, with C(repo_id), C(revision), C(branch), C(gated),
              C(allow_patterns), C(ignore_patterns) and C(weights_bytes). Null without one.
          type: dict
        auto_draft:
          description:
            - What C(speculative=auto) would take from the catalogue, in words. Empty where there is nothing, or where
              something proposes tokens.
          type: str
        kv_host_gib:
          description: The GiB of the node's memory that hold KV cache; 0 without.
          type: int
        preset:
          description: The preset that is taken. Empty without one.
          type: str
        preset_gain:
          description: What that preset gained, and by which measurement, in words.
          type: str
        faster_weights:
          description:
            - The other weights of the same model that were measured to be faster on these GPUs, and what they would
              give, in words. Empty where C(weights=fastest) would change nothing.
          type: str
        group:
          description:
            - The part of this node in an engine that runs over several nodes; null for an engine on one node.
          type: dict
          contains:
            size:
              description: Number of nodes.
              type: int
            rank:
              description: Place of this node. V(0) is the head, which has the API; all other engines are headless.
              type: int
            head:
              description: Address of the head. Empty if the nodes are not known.
              type: str
            nodes:
              description: Inventory names of the nodes, the head first. Empty if O(group) is not given.
              type: list
              elements: str
            addresses:
              description: Addresses at which the nodes reach each other, in that order. Empty if unknown.
              type: list
              elements: str
            master_port:
              description: TCP port of the head at which the other nodes join.
              type: int
            interface:
              description: Interface of this node for the traffic between the nodes. Empty if the engine chooses it.
              type: str
            hcas:
              description: RDMA adapters of this node for that traffic.
              type: list
              elements: str
            layers:
              description: Layers of each pipeline stage, the head's first.
              type: list
              elements: int
            step_bytes:
              description: Bytes that a full step sends from one stage to the next.
              type: int
            decided:
              description: Whether the plan chose the number of nodes, since one is too small.
              type: bool
        start_timeout_s:
          description: How long a start may take, in seconds, calculated from the bytes to load.
          type: int
        shm_size:
          description: Size of the shared memory of the container.
          type: str
        warnings:
          description: Warnings about this instance.
          type: list
          elements: str
    warnings:
      description: Warnings about the plan.
      type: list
      elements: str
    rejected:
      description: Rejected choices, with C(instance), C(choice), C(reason), and C(gain), the advantage of the choice.
      type: list
      elements: dict
findings:
  description: The reasons why the plan is not possible, one sentence each.
  returned: always
  type: list
  elements: str
ansible_facts:
  description: Facts about the system of the node.
  returned: when O(gather_facts) is true
  type: dict
unlisted:
  description: Names of the instances that are on the node but not in the plan.
  returned: always
  type: list
  elements: str
engines:
  description: The engines on the node, as M(gpunode.llm.gpu_info) returns them.
  returned: always
  type: list
  elements: dict
gpus:
  description: The GPUs of the plan, as M(gpunode.llm.gpu_info) returns them.
  returned: always
  type: list
  elements: dict
"""
