# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: mounts_for
short_description: Paths as a unit's RequiresMountsFor= takes them
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Puts paths into one line, each once and quoted as systemd reads it, so that a unit is started after what they lie on
    is mounted.
options:
  _input:
    description: The paths. One that is not absolute is left out.
    type: list
    elements: str
    required: true
  docker_args:
    description: Arguments of C(docker run), whose volumes and mounts are taken in.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
line: "RequiresMountsFor={{ ['/var/lib/huggingface/hub', '/var/cache/vllm'] | gpunode.llm.mounts_for }}"
"""

RETURN = r"""
_value:
  description: What stands behind the equals sign.
  type: str
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import quoting


def mounts_for(paths, docker_args=()):
    try:
        return quoting.mounts_for(paths, docker_args)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"gpunode.llm.mounts_for: {error}") from error


class FilterModule:
    def filters(self):
        return {"mounts_for": mounts_for}
