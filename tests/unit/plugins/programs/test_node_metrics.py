# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of a node as a file: what recorded GPUs, journals and units make of it, and that no old figure stays."""

from __future__ import annotations

import doctest
import json
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.programs import node_metrics

RECORDED = Path(__file__).parents[3] / "fixtures" / "nvidia_smi"


def samples(page):
    """The samples of a page's text, by series and labels."""
    lines = [line for line in page.text().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def gpus(recording, expected=0):
    page = node_metrics.Page()
    text = (RECORDED / f"{recording}.xml").read_text() if recording else None
    indices = node_metrics.add_gpus(page, text, expected)
    return samples(page), indices


def of(found, series, **labels):
    """The one sample of a series with these labels."""
    wanted = [f'{name}="{value}"' for name, value in labels.items()]
    (value,) = [
        value
        for key, value in found.items()
        if key.split("{")[0] == f"gpunode_{series}" and all(label in key for label in wanted)
    ]
    return value


def test_the_examples_in_the_program():
    assert doctest.testmod(node_metrics).failed == 0


def test_every_figure_of_a_recorded_h100():
    found, indices = gpus("h100x1", 1)
    assert indices == {"0:00:06": "0"}
    expected = {
        "gpus": 1,
        "gpus_expected": 1,
        "gpu_utilization_ratio": 0,
        "gpu_memory_total_bytes": 81559 * 2**20,
        "gpu_memory_used_bytes": 0,
        "gpu_temperature_celsius": 37,
        "gpu_memory_temperature_celsius": 37,
        # 50 degrees of T.limit are left, and it slows down at -2.
        "gpu_temperature_margin_celsius": 52,
        "gpu_power_watts": 123.81,
        "gpu_power_limit_watts": 700,
        "gpu_sm_clock_hertz": 510e6,
        "gpu_sm_clock_max_hertz": 1980e6,
        "gpu_memory_clock_hertz": 2619e6,
        "gpu_pcie_replays_total": 0,
        "gpu_row_remap_failure": 0,
        "gpu_row_remap_pending": 0,
        "gpu_recovery_needed": 0,
    }
    assert {name: of(found, name) for name in expected} == expected
    assert of(found, "gpu_info", board="NVIDIA H100 80GB HBM3") == 1
    assert of(found, "gpu_ecc_errors_total", kind="uncorrectable") == 0
    assert [of(found, "gpu_slowed", reason=reason) for reason in node_metrics.SLOWED] == [0] * 5
    assert not [key for key in found if "fabric" in key]


@pytest.mark.parametrize(
    ("recording", "count"),
    [("h200x2-busy", 2), ("h100x8", 8), ("h100x8-one-lost", 7), ("h100x8-driver-535", 8), ("gb10x1", 1), (None, 0)],
)
def test_a_gpu_that_is_lost_does_not_count(recording, count):
    assert of(gpus(recording, 8)[0], "gpus") == count


def test_a_gpu_that_is_lost_has_no_figure_and_the_others_keep_their_indices():
    found, _indices = gpus("h100x8-one-lost", 8)
    seen = {re.search(r'gpu="(\d)"', key)[1] for key in found if "gpu_utilization" in key}
    assert len(seen) == 7
    assert "7" in seen


def test_a_fabric_that_comes_up_is_not_up():
    up = [value for key, value in gpus("h100x8")[0].items() if "gpu_fabric_up" in key]
    coming = [value for key, value in gpus("h100x8-fabric-in-progress")[0].items() if "gpu_fabric_up" in key]
    assert up == [1] * 8
    assert 0 in coming


BOARD = """<nvidia_smi_log><gpu id="00000000:1A:00.0"><uuid>GPU-1</uuid>
<ecc_errors><volatile><sram_correctable>1</sram_correctable><dram_correctable>2</dram_correctable>
<sram_uncorrectable>N/A</sram_uncorrectable></volatile></ecc_errors>
<clocks_throttle_reasons><clocks_throttle_reason_hw_thermal_slowdown>Active</clocks_throttle_reason_hw_thermal_slowdown>
</clocks_throttle_reasons><remapped_rows><remapped_row_failure>Yes</remapped_row_failure></remapped_rows>
<temperature><gpu_temp>80 C</gpu_temp><gpu_temp_slow_threshold>90 C</gpu_temp_slow_threshold></temperature>
<power_readings><power_draw>250.5 W</power_draw></power_readings>
<gpu_recovery_action>Reset</gpu_recovery_action></gpu></nvidia_smi_log>"""


def test_older_drivers_have_other_names():
    page = node_metrics.Page()
    assert node_metrics.add_gpus(page, BOARD, 1) == {"0:1a:00": "0"}
    found = samples(page)
    assert of(found, "gpu_temperature_margin_celsius") == 10
    assert of(found, "gpu_power_watts") == 250.5
    assert of(found, "gpu_slowed", reason="hw_thermal_slowdown") == 1
    assert of(found, "gpu_ecc_errors_total", kind="correctable") == 3
    assert of(found, "gpu_row_remap_failure") == 1
    assert of(found, "gpu_recovery_needed", action="Reset") == 1
    # What is not known has no sample.
    assert not [key for key in found if 'kind="uncorrectable"' in key or "memory_used" in key]


def test_text_that_is_no_xml_is_no_gpu():
    page = node_metrics.Page()
    assert node_metrics.add_gpus(page, "NVIDIA-SMI has failed", 2) == {}
    assert samples(page) == {"gpunode_gpus_expected": 2, "gpunode_gpus": 0}


def event(message="", transport="kernel", **more):
    return json.dumps({"MESSAGE": message, "_TRANSPORT": transport, **more})


def failed(unit, result):
    return event("Failed", "journal", MESSAGE_ID=node_metrics.UNIT_FAILED, UNIT=unit, UNIT_RESULT=result)


def test_faults_and_ends_are_counted_by_what_they_need_and_how_they_came():
    xid = "NVRM: Xid (PCI:0000:1a:00): {}, pid=1, name=python3, Ch 00000008"
    journal = [
        event(xid.format(79)),
        event(xid.format(79)),
        event(xid.format(31)),
        event("NVRM: Xid (PCI:0000:ff:00): 64, x"),
        # Only the kernel says so.
        event(xid.format(48), "stdout"),
        event("usb 1-1: new device"),
        # A message that is no text comes as a list of bytes.
        json.dumps({"MESSAGE": [104, 105], "_TRANSPORT": "kernel"}),
        failed("vllm-8b.service", "oom-kill"),
        failed("vllm-8b.service", "oom-kill"),
        failed("vllm-8b.service", "exit-code"),
        failed("cron.service", "exit-code"),
    ]
    page = node_metrics.Page()
    node_metrics.add_events(page, "\n".join(journal), {"0:1a:00": "3"})
    assert samples(page) == {
        'gpunode_gpu_xids_last_hour{gpu="3",xid="31",action="none"}': 1,
        'gpunode_gpu_xids_last_hour{gpu="3",xid="79",action="reboot"}': 2,
        'gpunode_gpu_xids_last_hour{gpu="",xid="64",action="replace"}': 1,
        'gpunode_engine_failures_last_hour{name="vllm-8b.service",result="oom-kill"}': 2,
        'gpunode_engine_failures_last_hour{name="vllm-8b.service",result="exit-code"}': 1,
    }


def test_a_start_is_timed_until_the_engine_answered():
    units = [
        "Id=vllm-8b.service\nInactiveExitTimestampMonotonic=1000000\nActiveEnterTimestampMonotonic=63500000",
        # It loads: the last answer is from before.
        "Id=vllm-70b.service\nInactiveExitTimestampMonotonic=9000000\nActiveEnterTimestampMonotonic=63000",
        "Id=vllm-new.service\nInactiveExitTimestampMonotonic=0\nActiveEnterTimestampMonotonic=0",
    ]
    page = node_metrics.Page()
    node_metrics.add_starts(page, "\n\n".join(units))
    assert samples(page) == {'gpunode_engine_start_seconds{name="vllm-8b.service"}': 62.5}


def program(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A node whose programs say nothing, as one without GPUs and engines."""
    for name in ("nvidia-smi", "journalctl", "systemctl"):
        program(tmp_path, name, "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def written(node, gpus=1):
    assert node_metrics.main([f"--out={node}/node.prom", f"--gpus={gpus}"]) == 0
    return (node / "node.prom").read_text()


def test_the_file_is_replaced_whole_and_anybody_may_read_it(node):
    program(node, "nvidia-smi", f"cat {RECORDED}/h100x1.xml")
    assert "gpunode_gpus 1\n" in written(node)
    assert stat.S_IMODE((node / "node.prom").stat().st_mode) == 0o644
    assert not (node / "node.prom.new").exists()


def test_what_nvidia_smi_no_longer_says_is_no_longer_shown(node):
    program(node, "nvidia-smi", f"cat {RECORDED}/h100x1.xml")
    assert "gpunode_gpu_power_watts" in written(node)
    program(node, "nvidia-smi", "echo 'No devices were found'; exit 6")
    text = written(node)
    assert "gpunode_gpus 0\n" in text
    assert "gpunode_gpu_" not in text


def test_a_node_without_gpus_asks_for_none(node):
    program(node, "nvidia-smi", f"touch {node}/asked")
    assert "gpunode_gpus_expected 0\n" in written(node, gpus=0)
    assert not (node / "asked").exists()


def test_a_node_without_nvidia_smi_has_its_other_figures(node):
    (node / "nvidia-smi").unlink()
    program(node, "journalctl", f"echo '{failed('vllm-8b.service', 'signal')}'")
    assert 'gpunode_engine_failures_last_hour{name="vllm-8b.service",result="signal"} 1\n' in written(node)


def test_a_file_that_cannot_be_written_leaves_no_old_one(node, monkeypatch):
    (node / "node.prom").write_text("gpunode_gpus 8\n")

    def full(_source, _target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(node_metrics.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        node_metrics.main([f"--out={node}/node.prom"])
    assert not (node / "node.prom").exists()
    assert not (node / "node.prom.new").exists()


def test_a_process_that_hangs_is_left_and_not_started_again(node, monkeypatch):
    """One that waits for a lost GPU cannot be killed; here it is a child of the one that is."""
    monkeypatch.setattr(node_metrics, "PATIENCE_S", 0.2)
    program(node, "nvidia-smi", f"echo x >>{node}/starts; sleep 30 & echo $! >{node}/pid; wait")
    try:
        assert "gpunode_gpus 0\n" in written(node)
        assert "gpunode_gpus 0\n" in written(node)
        assert (node / "starts").read_text() == "x\n"
    finally:
        subprocess.run(["kill", (node / "pid").read_text().strip()], check=True)
    deadline = time.monotonic() + 10
    while (node / "starts").read_text() == "x\n" and time.monotonic() < deadline:
        written(node)
    assert (node / "starts").read_text() != "x\n"


def test_labels_are_quoted():
    page = node_metrics.Page()
    page.add("x_total", "What.", 1, name='a"b\\c')
    assert (
        page.text()
        == '# HELP gpunode_x_total What.\n# TYPE gpunode_x_total counter\ngpunode_x_total{name="a\\"b\\\\c"} 1\n'
    )


def test_it_runs_as_the_unit_runs_it(node):
    copy = node / "node-metrics.py"
    copy.write_text(Path(node_metrics.__file__).read_text())
    line = [sys.executable, "-I", "-S", str(copy), f"--out={node}/own.prom"]
    subprocess.run(line, check=True, env={"PATH": f"{node}:/usr/bin:/bin"})
    assert (node / "own.prom").read_text().endswith("gpunode_gpus 0\n")
