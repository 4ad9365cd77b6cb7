# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """What the planner takes, whoever asks it."""

    DOCUMENTATION = r"""
options:
  device:
    description: V(cuda) or V(cpu). The model decides where it is not set.
    type: str
  objective:
    description:
      - What the plan is good at.
      - V(throughput) takes as few GPUs per replica as leave room for the KV cache, and as many replicas as there is
        room for. V(latency) spreads a replica over as many GPUs as can be. V(context) looks for the longest context.
    type: str
    default: throughput
  engine:
    description: The vLLM release. The newest of the catalogue where it is not set.
    type: str
  image:
    description:
      - The container image. The engine release decides where it is not set. Where it is, options and memory are those
        of the release that its tag names, if O(engine) is not set and the catalogue knows that release; the plan
        warns where it does not.
    type: str
  host:
    description: The address on the node under which the endpoint is published.
    type: str
    default: 127.0.0.1
  port:
    description: The port of the first instance. Each further one gets the next.
    type: str
    default: "8000"
  max_model_len:
    description: The context in tokens, such as V(32768) or V(32K). The longest that fits where it is not set.
    type: str
  gpu_memory_utilization:
    description: The share of each GPU's memory that an engine takes. The engine release decides where it is not set.
    type: str
  kv_cache_dtype:
    description: The precision of the KV cache, such as V(auto) or V(fp8).
    type: str
  tensor_parallel_size:
    description: GPUs that share each layer. The planner decides where it is not set.
    type: str
  pipeline_parallel_size:
    description: Stages that the layers are divided into. The planner decides where it is not set.
    type: str
  data_parallel_size:
    description: Replicas. The planner decides where it is not set.
    type: str
  weights:
    description:
      - V(published) serves the weights that the model names, or fails.
      - V(smaller) takes the same model in FP8 or INT4 weights from the catalogue where the named ones do not fit.
    type: str
    default: published
  extra_args:
    description:
      - Further options of C(vllm serve) by their long names, without the leading hyphens. A null takes out one that
        the catalogue sets.
      - Each is checked against the list of options of the engine release.
    type: dict
    default: {}
  env:
    description: Environment of the engine. Never put a secret here, since the plan is shown.
    type: dict
    default: {}
  extra_models:
    description: Models beyond the catalogue, or amendments to it, in the form of C(catalog/models.yml).
    type: dict
    default: {}
  extra_gpus:
    description: GPUs beyond the catalogue, or amendments to it, in the form of C(catalog/gpus.yml).
    type: dict
    default: {}
  extra_engines:
    description:
      - Engine releases beyond the catalogue, or amendments to it, by version, in the form of C(catalog/engines).
    type: dict
    default: {}
  api_key_set:
    description: Whether clients will need an API key. Without one only a loopback address is accepted.
    type: bool
    default: false
  remove_unlisted:
    description:
      - Whether engines of this collection that are not in the plan are going to be removed, so that the GPUs that they
        hold count as free.
    type: bool
    default: false
"""
