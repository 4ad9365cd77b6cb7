# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option for the systemd units that a module runs or reads."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  units:
    description: The systemd units.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The unit's name with its suffix.
        type: str
        required: true
      files:
        description: The files that the unit reads at its start.
        type: list
        elements: path
        default: []
      started_from:
        description: The folder with copies of these files from the last start of the unit, each under its full path.
        type: path
        required: true
      container:
        description: The name of the Docker container that the unit runs.
        type: str
      image:
        description:
          - The image of that container. If the name now means another image, the unit needs a restart.
        type: str
      reloads:
        description:
          - Whether the service reads its files again at a reload. This does not include the unit file itself. The
            reload must copy the files to O(units[].started_from), as the start does.
          - Such a service is also reloaded when its program was replaced, for example by a package update.
        type: bool
        default: false
"""
