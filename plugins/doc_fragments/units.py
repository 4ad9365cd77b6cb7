# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The units that modules run, or look at."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  units:
    description: The units.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The unit's name with its suffix.
        type: str
        required: true
      files:
        description: The files that it starts from.
        type: list
        elements: path
        default: []
      started_from:
        description: The folder that holds them as they were at its start, each under its whole path.
        type: path
        required: true
      container:
        description: The name of the Docker container that it runs.
        type: str
      image:
        description:
          - The image of that container. When the name stands for another image by now, a restart is due.
        type: str
      reloads:
        description:
          - Whether the service takes up its files when it is told to reload, all but the one that has the unit's own
            name. Its reload has to put the files aside as its start does.
          - Such a service is reloaded as well when its program was replaced, as an update of a package does.
        type: bool
        default: false
"""
