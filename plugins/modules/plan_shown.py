# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# This is a virtual module: it is implemented as an action plugin, since the screen is the controller's.

DOCUMENTATION = r"""
module: plan_shown
short_description: Show what is going to be on a node
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Shows the plan of a node as text. Its GPUs, and for each model the layout, the context and what was given up for it,
    the image, the address, and whether an engine that runs is started anew. Then what is to be fetched, how long that
    takes, what the disk holds after it, what to know, and what would be faster or roomier.
  - Makes no call on the node. It tells of what M(gpunode.llm.serving_plan) and M(gpunode.llm.preflight_check) found.
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  plan:
    description: What M(gpunode.llm.serving_plan) returned.
    type: dict
    required: true
  check:
    description: What M(gpunode.llm.preflight_check) returned.
    type: dict
    required: true
  instances:
    description: The instances that the role vllm is going to have.
    type: list
    elements: dict
    required: true
  services:
    description:
      - What each instance is made of, as P(gpunode.llm.vllm_service#filter) says it. Its files are rendered here and
        compared with those that its engine was started from.
    type: list
    elements: dict
    default: []
  settled:
    description: Whether all run from what they are to run from, so that none is started anew and no file is rendered.
    type: bool
    default: false
  item_var:
    description: The variable through which the templates see the service.
    type: str
    default: item
  system:
    description: The node's system in words.
    type: str
    default: ""
  link_mbit_s:
    description: The speed of the node's link in Mbit/s, for the minutes. They are not told where it is not set.
    type: float
attributes:
  action:
    description: Runs on the controller alone.
    support: full
seealso:
  - module: gpunode.llm.serving_plan
"""

EXAMPLES = r"""
- name: Show what will be
  gpunode.llm.plan_shown:
    plan: "{{ preflight_plan }}"
    check: "{{ preflight_check }}"
    instances: "{{ preflight_check.instances }}"
    link_mbit_s: 1000
"""

RETURN = r"""
restarts:
  description: For each instance by its name, whether it is started anew, and why.
  type: dict
  returned: success
  sample: {"8b": "yes, its configuration changes"}
"""
