# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: bind_mount
short_description: Write the value of Docker's --mount for a path of the host
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Writes a bind mount in Docker's long form, quoted where the path holds commas or quotes.
options:
  _input:
    description: The path on the host. It must be absolute.
    type: path
    required: true
  target:
    description: The path in the container.
    type: str
    required: true
  readonly:
    description: Whether the container may only read it.
    type: bool
    default: false
"""

EXAMPLES = r"""
line: "--mount={{ '/srv/hub' | gpunode.llm.bind_mount('/hub', readonly=true) }}"
"""

RETURN = r"""
_value:
  description: The text as it must stand in the file.
  type: str
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import quoting


def bind_mount(source, target, readonly=False):
    try:
        return quoting.bind_mount(source, target, readonly)
    except ValueError as error:
        raise AnsibleFilterError(f"gpunode.llm.bind_mount: {error}") from error


class FilterModule:
    def filters(self):
        return {"bind_mount": bind_mount}
