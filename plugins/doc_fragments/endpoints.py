# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option for the endpoints that a module asks or waits for."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  endpoints:
    description: The endpoints. The module asks all of them at the same time.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name to use in messages.
        type: str
        required: true
      unit:
        description: The systemd unit of the endpoint, with its suffix. Without it, only the endpoint is checked.
        type: str
      host:
        description: The address that the endpoint listens on.
        type: str
        default: 127.0.0.1
      port:
        description: The port that the endpoint listens on.
        type: int
        default: 8000
      model:
        description: The name under which the model is served.
        type: str
        required: true
      env_file:
        description: A file on the node that holds C(VLLM_API_KEY). The key never leaves the node.
        type: path
      timeout_s:
        description: How long the endpoint may take to answer, in seconds.
        type: int
        default: 900
      task:
        description:
          - What the model is served for. It decides which route is asked, a completion's or a pooling model's.
        type: str
        choices: [classify, embed, generate, pooling, rerank]
        default: generate
      rank:
        description:
          - The rank of this node in an engine over several nodes. One above V(0) has no API and counts as ready when
            its unit runs.
        type: int
      head:
        description: The node that has the API of such an engine.
        type: str
"""
