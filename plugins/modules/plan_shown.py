# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# This is a virtual module: it is implemented as an action plugin, because the screen is on the controller.

DOCUMENTATION = r"""
module: plan_shown
short_description: Show the plan of a node
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Shows the plan of a node as text. The text lists the GPUs. For each model it lists the layout, the context and its
    cost, the image, the address, and whether a running engine is restarted. Then it lists the downloads, their
    duration, the disk space after them, notes, and settings that would give more speed or more context.
  - Makes no call on the node. It shows results of M(gpunode.llm.serving_plan) and M(gpunode.llm.preflight_check).
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  plan:
    description: The result of M(gpunode.llm.serving_plan).
    type: dict
    required: true
  check:
    description: The result of M(gpunode.llm.preflight_check).
    type: dict
    required: true
  instances:
    description: The instances that the role P(gpunode.llm.vllm#role) will run.
    type: list
    elements: dict
    required: true
  services:
    description:
      - The service of each instance, as P(gpunode.llm.vllm_service#filter) returns it. The module renders its files and
        compares them with the files from which its engine was started.
    type: list
    elements: dict
    default: []
  settled:
    description: Whether all engines run from current files. Then no engine is restarted and the module renders no file.
    type: bool
    default: false
  item_var:
    description: The name of the variable that holds the service in the templates.
    type: str
    default: item
  system:
    description: The operating system of the node, as text.
    type: str
    default: ""
  link_mbit_s:
    description: The speed of the node's network link in Mbit/s. Without it, the text has no download times.
    type: float
attributes:
  action:
    description: Runs only on the controller.
    support: full
seealso:
  - module: gpunode.llm.serving_plan
"""

EXAMPLES = r"""
- name: Show the plan
  gpunode.llm.plan_shown:
    plan: "{{ preflight_plan }}"
    check: "{{ preflight_check }}"
    instances: "{{ preflight_check.instances }}"
    link_mbit_s: 1000
"""

RETURN = r"""
restarts:
  description: Whether each instance is restarted, and why, by the name of the instance.
  type: dict
  returned: success
  sample: {"8b": "yes, its configuration changes"}
"""
