# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ..plugin_utils.planner import options


class ModuleDocFragment:
    """What the planner takes, whoever asks it. Each option is defined in roles/vllm/meta/argument_specs.yml."""

    # With its type, since ansible-test's yamllint takes any plain assignment here for a literal text.
    DOCUMENTATION: str = options.documentation()
