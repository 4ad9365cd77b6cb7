# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ..plugin_utils import hub_models
from ..plugin_utils.planner import options


class ModuleDocFragment:
    """The options of every module that plans.

    roles/vllm/meta/argument_specs.yml defines those of the planner, hub_models those for asking the hub.
    """

    # The annotation is needed: yamllint in ansible-test takes a plain assignment here for a literal text.
    DOCUMENTATION: str = options.documentation(hub_models.DOCUMENTED)
