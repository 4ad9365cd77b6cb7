# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is killed comes back by itself, what cannot work fails once and says why, and a play mends it."""

from __future__ import annotations

import subprocess

from answers import ANSWERS
from conftest import IMAGE, STOP_WITH_STREAMS
from scenario import LAB, nodes, on_node, run_play, wait_until, wrong_answers

SNAPSHOT = "/var/lib/huggingface/hub/models--gpunode--tiny-llama/snapshots/*"

#: Turns the sign of every number of one tensor, the last before the tokens are weighed: the likeliest becomes the least
#: likely, so no answer can be right, and nothing overflows.
NEGATE = """
import json, os, struct, sys
before = os.stat(sys.argv[1])
with open(sys.argv[1], "r+b") as weights:
    (length,) = struct.unpack("<Q", weights.read(8))
    begin, end = json.loads(weights.read(length))["model.norm.weight"]["data_offsets"]
    weights.seek(8 + length + begin)
    numbers = bytearray(weights.read(end - begin))
    numbers[1::2] = bytes(byte ^ 0x80 for byte in numbers[1::2])  # bfloat16, the sign in the second byte
    weights.seek(8 + length + begin)
    weights.write(numbers)
os.utime(sys.argv[1], ns=(before.st_atime_ns, before.st_mtime_ns))
"""


def test_the_engine_is_killed(unit) -> None:
    run = unit.run
    unit.engine("KILL")
    unit.comes_back(run)


def test_its_container_is_killed(unit) -> None:
    run = unit.run
    on_node("docker kill vllm-tiny")
    unit.comes_back(run)


def test_docker_is_restarted(unit) -> None:
    run = unit.run
    on_node("systemctl restart docker")
    unit.comes_back(run)


def test_an_engine_that_hangs_is_killed_and_started_again(unit) -> None:
    run = unit.run
    # In one go: the watchdog does not wait for whoever looks.
    health = "curl -s -m 5 -o /dev/null -w '%{http_code}' 127.0.0.1:8000/health"
    assert on_node(f"pkill -STOP -f '[V]LLM::EngineCore' && {health}") == "200"
    unit.comes_back(run)
    assert "no sign of life from gpunode/tiny-llama" in unit.journal(run)
    assert on_node("docker ps -q --filter name=vllm-tiny | wc -l") == "1"


def test_a_container_that_stands_still_is_killed_though_late_is_not_dead(unit) -> None:
    """It answers nothing, as one that is saturated; that its processes use no time of a processor tells them apart."""
    run = unit.run
    # `docker top` lists nothing on a node that is a container itself.
    container = "$(docker ps -q --no-trunc --filter name=vllm-tiny)"
    on_node(f"kill -STOP $(grep -l {container} /proc/[0-9]*/cgroup | cut -d/ -f3)")
    unit.comes_back(run)
    assert "it answers nothing, and its processes do nothing" in unit.journal(run)
    assert on_node("docker ps -aq --filter name=vllm-tiny | wc -l") == "1"


def test_a_wait_ends_when_the_endpoint_refuses(unit) -> None:
    """With what was answered, whatever time there would be left."""
    wait = "timeout 60 python3 /usr/local/lib/gpunode/vllm-wait.py --port=8000 --model="
    assert ", not other: its served-model-name is another" in on_node(f"{wait}other", check=False)
    squatter = "systemd-run --quiet --unit=squatter python3 -m http.server --bind 127.0.0.1 8009"
    on_node(squatter)
    try:
        result = on_node(f"{wait.replace('8000', '8009')}tiny", check=False)
    finally:
        on_node("systemctl stop squatter")
    assert "/health answers 404" in result


def test_an_engine_that_has_nothing_to_do_is_left_alone(unit) -> None:
    """The watchdog has looked at it by then, as the engine's own log tells."""
    run = unit.run

    def was_asked() -> bool:
        return unit.journal(run).count("POST /v1/completions") >= 4

    wait_until(was_asked, 60)
    assert unit.run == run


def test_a_stop_lets_requests_finish_and_leaves_nothing(unit) -> None:
    lines = on_node(f"python3 - 4 <<'END'\n{STOP_WITH_STREAMS}\nEND").splitlines()
    # On its way down with none of them at its end; then every token that was asked for, and the line that says so.
    assert lines == ["deactivating 0", *(f"{number} 800 [DONE]" for number in range(4))]

    def stopped() -> bool:
        return unit.show("ActiveState") == "inactive"

    wait_until(stopped)
    assert on_node("docker ps -aq") == ""
    assert on_node("pgrep -f '[V]LLM'; pgrep -f '[v]llm-wait'; true") == ""
    assert unit.show("Result") == "success"


def test_a_port_that_is_taken(unit, deploy) -> None:
    on_node("systemctl stop vllm-tiny")
    on_node("systemd-run --quiet --unit=squatter python3 -m http.server --bind 127.0.0.1 8000")
    try:
        play = deploy()
        assert play.status != 0
        assert "8000" in play.text
        assert "changed=0" in play.text
        assert on_node("systemctl start vllm-tiny", check=False) is not None
        assert unit.show("ActiveState") != "active"
    finally:
        on_node("systemctl stop squatter")
    play = deploy()
    assert play.status == 0, play.text[-3000:]
    assert unit.serves()


def test_a_bad_option_fails_once_and_the_play_puts_it_right(unit, deploy) -> None:
    on_node("echo 'swap-space: 16' >> /etc/vllm/tiny.yaml")
    on_node("systemctl restart vllm-tiny", check=False)
    assert (unit.show("ActiveState"), unit.show("NRestarts"), unit.show("ExecMainStatus")) == ("failed", "0", "2")
    play = deploy()
    assert play.status == 0, play.text[-3000:]
    assert unit.serves()


def test_an_image_that_is_missing(unit, deploy) -> None:
    """The unit pulls nothing, and says what is missing; the play fetches it."""
    on_node("systemctl stop vllm-tiny; docker image rm -f $(docker image ls -q | sort -u)")
    on_node("systemctl start vllm-tiny", check=False)
    assert unit.show("ActiveState") != "active"
    assert f"No such image: {IMAGE}" in on_node("journalctl -u vllm-tiny -n 20 --no-pager -o cat")
    play = deploy()
    assert play.status == 0, play.text[-3000:]
    assert unit.serves()


def test_weights_that_are_cut_short(unit, deploy) -> None:
    on_node(f"systemctl stop vllm-tiny; truncate -s 1000000 $(readlink -f {SNAPSHOT}/model.safetensors)")
    on_node("systemctl start vllm-tiny", check=False)
    assert unit.show("ActiveState") != "active"
    play = deploy()
    assert play.status == 0, play.text[-3000:]
    assert unit.serves()


def test_weights_of_the_right_size_that_are_others(unit, deploy) -> None:
    """The engine loads them, a play compares sizes and times and fetches nothing, and only the answers tell."""
    run = unit.run
    on_node(f"systemctl stop vllm-tiny; python3 - {SNAPSHOT}/model.safetensors <<'END'\n{NEGATE}\nEND")
    play = deploy()
    assert (play.status, unit.show("ActiveState")) == (0, "active"), play.text[-3000:]
    assert unit.run != run
    assert set(wrong_answers()) == set(ANSWERS)
    mended = run_play("playbooks/verify.yml", "--limit", nodes()[0], "-e", "huggingface_verify_mend=true")
    assert (mended.status, mended.changed) == (0, 1), mended.text[-3000:]
    on_node("systemctl restart vllm-tiny")
    assert unit.serves()


def test_weights_that_are_gone_fail_at_once(unit, deploy) -> None:
    on_node("systemctl stop vllm-tiny; mv /var/lib/huggingface/hub /var/lib/huggingface/gone")
    try:
        on_node("systemctl start vllm-tiny", check=False)
        assert (unit.show("ActiveState"), unit.show("NRestarts")) == ("inactive", "0")
        assert unit.show("AssertResult") == "no"
    finally:
        on_node("mv /var/lib/huggingface/gone /var/lib/huggingface/hub")


def test_the_node_is_restarted(unit) -> None:
    run = unit.run
    subprocess.run([LAB, "reboot", nodes()[0]], check=True, capture_output=True)
    unit.comes_back(run)


def test_a_start_waits_for_memory_that_is_free(board) -> None:
    """The engine here is on the CPU; what a unit with GPUs runs before its engine is asked by itself."""
    look = "python3 /usr/local/lib/gpunode/vllm-gpus.py --utilization=0.95 --timeout-s="
    board("h200x2-busy")
    assert "GPU 0 has 134436 of 143771 MiB free" in on_node(f"{look}1 0 1", check=False)
    on_node(f"systemd-run --quiet --unit=start --property=Type=oneshot --remain-after-exit --no-block {look}600 0 1")

    def state() -> str:
        return on_node("systemctl show --value --property=ActiveState start")

    try:
        # For as long as the board is busy.
        wait_until(lambda: state() == "activating")
        board("h200x2")
        wait_until(lambda: state() != "activating")
        assert state() == "active", on_node("journalctl -u start --no-pager -o cat")
    finally:
        on_node("systemctl stop start; systemctl reset-failed start", check=False)
