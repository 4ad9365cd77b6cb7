# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change that works is taken, one that does not is taken back, and neither touches what it does not concern."""

from __future__ import annotations

import json

import pytest
import yaml
from conftest import IMAGE, VARS, Unit
from scenario import CHECKOUT, begin_play, nodes, on_node, run_play, wait_until

#: The tiny model as the catalogue has it.
TINY = yaml.safe_load((CHECKOUT / "catalog" / "models.yml").read_text(encoding="utf-8"))["models"]["tiny"]

#: What lies in /etc/vllm for the tiny model.
FILES = ["tiny.env", "tiny.json", "tiny.yaml"]

#: What a play says at its end of a change that was refused before anything stopped.
UNTOUCHED = (
    "What changed was refused, for the cause above."
    " vllm-tiny.service was never stopped, and its last working files are back."
)


def away(answers: list[tuple[float, str]]) -> str:
    """The window in which a client was not served, for the note; it is asserted nowhere."""
    missed = [when for when, answer in answers if answer != "ok"]
    return (
        f"{len(missed)} of {len(answers)} requests missed within {max(missed) - min(missed):.0f} s"
        if missed
        else "none"
    )


def test_a_configuration_that_the_parser_refuses_stops_nothing(unit, deploy, client) -> None:
    """A value that the plan knows nothing of; only the image's own parser refuses it."""
    run = unit.run
    play = deploy("-e", json.dumps({"vllm_extra_args": {"scheduling-policy": "lottery"}}))
    assert play.status != 0
    assert "argument --scheduling-policy: invalid choice" in play.words
    assert UNTOUCHED in play.words
    assert "again, and answers" not in play.words
    assert unit.run == run
    assert {answer for _when, answer in client()} == {"ok"}
    assert deploy().status == 0


def test_a_plan_that_the_engine_refutes_stops_nothing(unit, deploy, client) -> None:
    """The entry says half of the model's layers, so the plan counts half of the KV cache that a request takes."""
    run = unit.run
    config = {**TINY["config"], "num_hidden_layers": TINY["config"]["num_hidden_layers"] // 2}
    longer = {"max_position_embeddings": 1 << 21}
    options = {
        "vllm_extra_models": {"tiny": {"config": {**config, **longer}, "max_model_len": 1 << 21}},
        "vllm_env": {"VLLM_CPU_KVCACHE_SPACE": "1"},
        "vllm_max_model_len": 1500000,
        "vllm_extra_args": {"hf-overrides": longer},
    }
    play = deploy("-e", json.dumps(options))
    assert play.status != 0
    assert "of KV cache for one request of 1500000 tokens, the plan has 1.00 GiB for the KV cache" in play.words
    assert UNTOUCHED in play.words
    assert unit.run == run
    assert {answer for _when, answer in client()} == {"ok"}
    assert deploy().status == 0


def test_the_engines_own_figures_stand_beside_the_plan(unit, tmp_path) -> None:
    """The image is asked on the node, by the model's config.json alone."""
    run, page = unit.run, tmp_path / "plan.json"
    given = ("-e", f"@{VARS}", "-e", "exact=true", "-e", f"json={page}")
    play = run_play("playbooks/plan.yml", "--limit", nodes()[0], *given)
    assert play.status == 0, play.text[-3000:]
    assert "What the engine's own image counts" in play.words
    (row,) = json.loads(page.read_text(encoding="utf-8"))["nodes"][nodes()[0]]
    assert row["exact"]["image"] == IMAGE
    assert row["exact"]["request_bytes"] == row["exact"]["planned_request_bytes"] > 0
    assert unit.run == run


@pytest.mark.parametrize(("kind", "cause"), [("dies", "no luck today"), ("hangs", "TimeoutStartSec")])
def test_an_image_that_does_not_serve_is_taken_back(unit, deploy, client, broken_images, kind, cause) -> None:
    before = on_node("sha256sum /etc/vllm/tiny.yaml /etc/vllm/tiny.env /etc/systemd/system/vllm-tiny.service")
    play = deploy("-e", f"vllm_image={broken_images[kind]}", "-e", "vllm_start_timeout_s=10")
    assert play.status != 0
    assert cause in play.words, play.text[-3000:]
    assert "runs its last working configuration again, and answers" in play.words
    assert unit.serves()
    after = on_node("sha256sum /etc/vllm/tiny.yaml /etc/vllm/tiny.env /etc/systemd/system/vllm-tiny.service")
    assert after == before
    assert on_node("docker inspect -f '{{.Config.Image}}' vllm-tiny") == IMAGE
    print(f"\n  {kind}: {away(client())}")


def test_an_upgrade_that_works_is_kept(unit, deploy, client) -> None:
    on_node(f"printf 'FROM {IMAGE}\\nLABEL release=next\\n' | docker build -q -t gpunode.test/vllm:next -")
    run = unit.run
    play = deploy("-e", "vllm_image=gpunode.test/vllm:next")
    assert play.status == 0, play.text[-3000:]
    assert unit.run != run
    assert on_node("docker inspect -f '{{.Config.Image}}' vllm-tiny") == "gpunode.test/vllm:next"
    kept = "/var/lib/gpunode/vllm/tiny/etc/systemd/system/vllm-tiny.service"
    assert "gpunode.test/vllm:next" in on_node(f"cat {kept}")
    print(f"\n  works: {away(client())}")
    assert deploy().status == 0


def test_instances_come_and_go_without_the_others(unit, deploy) -> None:
    run = unit.run
    second = {"model": "tiny", "name": "second", "port": 8001}
    play = deploy("-e", json.dumps({"model": "", "models": [{"model": "tiny"}, second]}))
    assert play.status == 0, play.text[-3000:]
    assert Unit("vllm-second", 8001).show("ActiveState") == "active"
    assert unit.run == run
    play = deploy("-e", "vllm_remove_unlisted=true")
    assert play.status == 0, play.text[-3000:]
    assert on_node("systemctl list-units --all --plain --no-legend 'vllm-*'").count("vllm-") == 1
    assert on_node("ls /etc/vllm").split() == FILES
    assert unit.run == run


#: Another instance in the place of the one that is there, on the same port.
INSTEAD = {"model": "", "models": [{"model": "tiny", "name": "other"}], "vllm_remove_unlisted": True}


def test_a_value_that_cannot_be_rendered_leaves_what_serves(unit, deploy, client) -> None:
    run = unit.run
    play = deploy("-e", json.dumps({**INSTEAD, "vllm_env": {"WHERE": "{{ nowhere }}"}}))
    assert play.status != 0
    assert "nowhere" in play.text
    assert unit.run == run
    assert on_node("ls /etc/vllm").split() == FILES
    assert {answer for _when, answer in client()} == {"ok"}


def test_the_old_instance_serves_again_if_the_new_one_fails(unit, deploy, broken_images) -> None:
    before = on_node("sha256sum /etc/vllm/tiny.* /etc/systemd/system/vllm-tiny.service")
    play = deploy("-e", json.dumps({**INSTEAD, "vllm_image": broken_images["dies"]}))
    assert play.status != 0
    assert "no luck today" in play.words
    assert "vllm-tiny.service, which had made room, runs again, and answers" in play.words, play.text[-3000:]
    assert unit.serves()
    assert on_node("sha256sum /etc/vllm/tiny.* /etc/systemd/system/vllm-tiny.service") == before
    state = on_node("systemctl is-enabled vllm-tiny vllm-other; systemctl is-active vllm-other; true", check=False)
    assert state.split() == ["enabled", "disabled", "inactive"]


def test_an_unlisted_instance_is_removed_when_the_new_one_answers(unit, deploy) -> None:
    """Also after a play that died in between, with the old one stopped."""
    play = begin_play("site.yml", "--limit", nodes()[0], "-e", f"@{VARS}", "-e", json.dumps(INSTEAD))

    def the_new_one_starts() -> bool:
        return Unit("vllm-other").show("ActiveState") == "activating"

    wait_until(the_new_one_starts, 120)
    play.kill()
    assert unit.show("ActiveState") == "inactive"
    again = deploy("-e", json.dumps(INSTEAD))
    assert again.status == 0, again.text[-3000:]
    assert Unit("vllm-other").show("ActiveState") == "active"
    files = on_node("ls /etc/vllm; ls /etc/systemd/system | grep ^vllm-").split()
    assert files == ["other.env", "other.json", "other.yaml", "vllm-other.service"]
    assert deploy("-e", "vllm_remove_unlisted=true").status == 0
    assert unit.serves()


def test_a_run_with_nothing_to_do_restarts_nothing(unit, deploy) -> None:
    run = unit.run
    play = deploy()
    assert (play.status, play.changed) == (0, 0), play.text[-3000:]
    assert unit.run == run


def test_a_change_that_fails_on_one_node_does_not_come_to_the_next(unit) -> None:
    first, second = nodes()
    wrong = json.dumps({"vllm_extra_args": {"monokernel": True}, "nodes_at_a_time": 1})
    play = run_play("site.yml", "--limit", f"{first},{second}", "-e", f"@{VARS}", "-e", wrong)
    assert play.status != 0
    assert on_node("ls /etc/vllm /etc/docker 2>/dev/null; true", node=second) == ""
    assert unit.serves()
