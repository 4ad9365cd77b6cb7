# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in awx/, as ansible reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]


class Loader(yaml.SafeLoader):
    """YAML with Ansible's mark for text that is no template."""


Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
CONTENT: dict[str, Any] = {}
for page in ("content.yml", "surveys.yml"):
    CONTENT |= yaml.load((CHECKOUT / "awx" / page).read_text(encoding="utf-8"), Loader)
