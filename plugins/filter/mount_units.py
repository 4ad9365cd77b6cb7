# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: mount_units
short_description: The units of the mounts on which paths may lie
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Names the unit of every mount on which a path may lie, for a unit's C(Wants=) and C(After=), so that the unit is
    started after them and goes on when one of them is taken away.
options:
  _input:
    description: The paths. One that is not absolute is left out.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
line: "After={{ ['/srv/tls/own.pem'] | gpunode.llm.mount_units }}"
"""

RETURN = r"""
_value:
  description: What stands behind the equals sign.
  type: str
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import quoting


def mount_units(paths):
    try:
        return quoting.mount_units(paths)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"gpunode.llm.mount_units: {error}") from error


class FilterModule:
    def filters(self):
        return {"mount_units": mount_units}
