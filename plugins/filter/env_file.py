# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: env_file
short_description: Write variables as an env file for Docker
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Writes one C(NAME=value) per line, sorted by name, and refuses what such a file cannot hold.
  - Messages never show a value.
options:
  _input:
    description: Names and values. V(true) and V(false) become V(1) and V(0).
    type: dict
    required: true
  further:
    description: Further variables, each of them as a positional argument. Later ones win over those before.
    type: dict
"""

EXAMPLES = r"""
content: "{{ {'VLLM_CACHE_ROOT': '/root/.cache/vllm'} | gpunode.llm.env_file }}"
"""

RETURN = r"""
_value:
  description: The text as it must stand in the file.
  type: str
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import quoting


def env_file(variables, *further):
    try:
        return quoting.env_file({key: value for layer in (variables, *further) for key, value in layer.items()})
    except ValueError as error:
        raise AnsibleFilterError(f"gpunode.llm.env_file: {error}") from error


class FilterModule:
    def filters(self):
        return {"env_file": env_file}
