# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What repairs itself, what leaves, and that nothing stays."""

from __future__ import annotations

from pathlib import Path

from conftest import FLEET, HOST, SECOND, TARGETS, play
from scenario import on_node

LEFT = "/etc/gpunode/monitoring /var/lib/gpunode/metrics /var/lib/gpunode-* /usr/local/lib/gpunode/node-metrics.py"
LEFT += " /etc/systemd/system/gpunode-{node-exporter,node-metrics,prometheus,alertmanager,blackbox}*"


def test_the_next_run_puts_right_what_was_changed_by_hand(tmp_path: Path) -> None:
    """Rules, a target of nobody's, a stopped exporter; and another Prometheus gets the same files."""
    result = play("site.yml", monitoring_files_dir=str(tmp_path))
    assert result.status == 0, result.text[-3000:]
    assert on_node(f"ls {TARGETS}", node=HOST).split() == sorted(f"{node}.json" for node in FLEET)
    rules = on_node("cat /etc/gpunode/monitoring/rules.yml", node=HOST)
    assert "for: 10m" in rules
    assert (tmp_path / "rules.yml").read_text().strip() == rules
    assert {path.name for path in tmp_path.iterdir()} == {"targets", "rules.yml", "index.html", "dashboard.json"}
    assert {path.name for path in (tmp_path / "targets").iterdir()} == {f"{node}.json" for node in FLEET}
    again = play("site.yml", monitoring_files_dir=str(tmp_path))
    assert again.changed == 0, again.text[-3000:]


def test_a_run_of_one_node_keeps_the_targets_of_the_others() -> None:
    result = play("site.yml", f"--limit={HOST}")
    assert result.status == 0, result.text[-3000:]
    assert on_node(f"ls {TARGETS}", node=HOST).split() == sorted(f"{node}.json" for node in FLEET)


def test_a_teardown_leaves_nothing() -> None:
    result = play("playbooks/teardown.yml", "-e", "level=packages")
    assert result.status == 0, result.text[-3000:]
    for node in (HOST, SECOND):
        assert on_node(f"bash -c 'ls -d {LEFT} 2>/dev/null'", check=False, node=node) == ""
        assert on_node("dpkg -l 'prometheus*' 2>/dev/null | grep ^ii", check=False, node=node) == ""
        assert on_node("ss -Hltn 'sport >= :9090 and sport <= :9115'", node=node) == ""
