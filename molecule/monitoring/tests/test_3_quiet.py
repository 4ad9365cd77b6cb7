# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nobody is told of anything while a fleet serves, is changed node by node, and is restarted by somebody."""

from __future__ import annotations

import time

from clients import Front, steady_load
from conftest import FLEET, KEY, SECOND, asked, note, play, told
from scenario import on_node

#: Seconds of quiet at the end; all in all it is a quarter of an hour.
QUIET_S = 240


def test_no_alert_in_a_change_a_restart_and_a_quiet_time(front: Front) -> None:
    began = time.monotonic()
    with steady_load(front, KEY, lines=2) as load:
        result = play("site.yml", vllm_extra_args={"max-num-seqs": 48})
        assert result.status == 0, result.text[-3000:]
        # Somebody at 3 a.m.
        on_node("systemctl restart vllm-tiny", node=SECOND)
        time.sleep(QUIET_S)
    note(f"{(time.monotonic() - began) / 60:.0f} minutes, {load.figures()}")
    fired = asked('count by (alertname, instance, node) (count_over_time(ALERTS{alertstate="firing"}[1h]))')
    assert fired == []
    assert told() == {}
    for node in FLEET:
        assert on_node("systemctl is-active vllm-tiny", node=node) == "active"
