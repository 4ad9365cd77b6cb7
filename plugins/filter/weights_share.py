# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: weights_share
short_description: Say what of the weights a node fetches, takes over and hands on
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - From what M(gpunode.llm.preflight_check) found of a play's nodes, where each instance that comes from another node
    carries that one's name.
options:
  _input:
    description: For each node what M(gpunode.llm.preflight_check) returned. A node that was not checked has no part.
    type: dict
    required: true
  node:
    description: The node that is asked about.
    type: str
    required: true
  update:
    description: Whether a node that has recorded a branch's commit goes over to its seeder's.
    type: bool
    default: false
"""

EXAMPLES = r"""
share: "{{ {'a': hostvars['a'].check, 'b': hostvars['b'].check} | gpunode.llm.weights_share(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The node's part.
  type: dict
  contains:
    instances:
      description: All of its instances, pinned.
      type: list
      elements: dict
    weights:
      description: What it does about their weights.
      type: dict
      contains:
        fetch:
          description: Those that it has or downloads itself.
          type: list
          elements: dict
        receive:
          description: The others, as dictionaries of C(seeder), a node's name, and C(instances).
          type: list
          elements: dict
        serve:
          description: Those that it hands to other nodes in this play.
          type: list
          elements: dict
        receivers:
          description: The names of those nodes.
          type: list
          elements: str
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import weights


def weights_share(checks, node, update=False):
    try:
        instances, part = weights.share(checks, node, update)
        return {"instances": instances, "weights": dict(vars(part))}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"gpunode.llm.weights_share: these are not checks of nodes: {error!r}") from error


class FilterModule:
    def filters(self):
        return {"weights_share": weights_share}
