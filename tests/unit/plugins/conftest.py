# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-core will take away no module uses: whoever runs it would read of that, and can do nothing."""

from __future__ import annotations

import pytest
from ansible.module_utils.basic import AnsibleModule


@pytest.fixture(autouse=True)
def no_deprecation(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_module: AnsibleModule, msg: str, *_args: object, **_named: object) -> None:
        pytest.fail(f"ansible-core says: {msg}")

    monkeypatch.setattr(AnsibleModule, "deprecate", refuse)
