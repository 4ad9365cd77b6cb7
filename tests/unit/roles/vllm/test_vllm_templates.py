# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role writes: whole files as they are expected, and units that stay whole whatever is put into them.

The expected files lie in golden/. After a change that is meant: GOLDEN_UPDATE=1 pytest, and read the difference.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpunode.llm.plugins.module_utils.instance import names, old_unit, record
from ansible_collections.gpunode.llm.plugins.module_utils.units import unit as units_unit
from ansible_collections.gpunode.llm.plugins.plugin_utils.gateway import plan as gateway
from ansible_collections.gpunode.llm.plugins.plugin_utils.service import Settings, second_instances, trial_instances

HERE = Path(__file__).parent
ROLE = HERE.parents[3] / "roles" / "vllm"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
VARS = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
H100X8 = json.loads((HERE / "golden" / "405b-fp8.instance.json").read_text())
TEMPLATES = {"yaml": "config.yaml.j2", "env": "env.j2", "service": "vllm.service.j2", "keys.yaml": "keys.yaml.j2"}
#: Instances with settings, and what the release before NAME.json made of them.
CASES = json.loads((HERE / "golden" / "cases.json").read_text())


def trusted(value):
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    return trust_as_template(value) if isinstance(value, str) else value


def variables_of(instance, **settings):
    """What the role knows of one instance."""
    known = {**DEFAULTS, **trusted(VARS), "ansible_facts": {}, **settings, "vllm_instances": []}
    service = "{{ one | gpunode.llm.vllm_service(__vllm_settings) }}"
    return {**known, "__vllm_service": trust_as_template(service), "one": instance}


def service_of(instance, **settings):
    templar = Templar(loader=DataLoader(), variables=variables_of(instance, **settings))
    return templar.template(trust_as_template("{{ __vllm_service }}"))


def render(template, instance, **settings):
    """As the action plugin rendered_files does it."""
    variables = variables_of(instance, **settings)
    text = trust_as_template((ROLE / "templates" / template).read_text())
    overrides = {"trim_blocks": True, "lstrip_blocks": True}
    templar = Templar(loader=DataLoader(), variables=variables)
    return templar.template(text, escape_backslashes=False, overrides=overrides).rstrip("\n") + "\n"


@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.parametrize("case", CASES)
def test_an_upgrade_writes_what_runs(case, kind):
    """Another text of any of these, be it in a comment, restarts every engine there is."""
    expected = HERE / "golden" / f"{case}.{kind}"
    text = render(TEMPLATES[kind], CASES[case]["instance"], **CASES[case]["settings"])
    if os.environ.get("GOLDEN_UPDATE") and expected.exists():
        expected.write_text(text)
    if kind != "keys.yaml" or len(CASES[case]["settings"].get("vllm_api_keys", [])) > 1:
        assert text == expected.read_text()


@pytest.mark.parametrize("case", CASES)
def test_an_upgrade_restarts_nothing(case):
    """By the rule of units_ready, where an engine was started from what the release before NAME.json wrote."""
    instance, settings = CASES[case]["instance"], CASES[case]["settings"]
    service = service_of(instance, **settings)
    written = {file["dest"]: render(file["src"], instance, **settings) for file in service["to_write"]}
    ends = {path: path.removeprefix(f"/etc/vllm/{service['name']}.") for path in service["starts_from"]}
    before = {path: HERE / "golden" / f"{case}.{Path(path).name.split(service['name'] + '.')[-1]}" for path in ends}
    aside = {service["started_from"] + path: file.read_text() for path, file in before.items()}
    stale = units_unit.stale_file(service["started_from"], service["runs"]["files"], {**written, **aside}.get)
    assert stale == ""
    assert service["files"]["record"] in written
    assert service["files"]["record"] not in service["runs"]["files"]


@pytest.mark.parametrize("case", CASES)
def test_a_record_matches_a_unit_of_an_earlier_release(case):
    """Both ways in which a node tells of an instance lead to the same."""
    service = service_of(CASES[case]["instance"], **CASES[case]["settings"])
    unit, config = ((HERE / "golden" / f"{case}.{end}").read_text() for end in ("service", "yaml"))
    read_back = record.parse(render("record.json.j2", CASES[case]["instance"], **CASES[case]["settings"]))
    assert read_back == old_unit.record_of(service["files"]["unit"], unit, config)


def test_a_record_holds_no_secret_and_names_its_writer():
    secret = {"vllm_api_keys": ["sk-one", "sk-two"], "vllm_secret_env": {"TOKEN": "hf_secret"}}
    text = render("record.json.j2", H100X8, **secret, vllm_docker_args=["--env=PASSWORD=pw"], vllm_env={"A": "env"})
    assert not [word for word in ("sk-", "hf_secret", "pw", "env-") if word in text]
    result = json.loads(text)
    assert (result["schema"], result["name"], result["unit"]) == (1, "405b-fp8", "vllm-405b-fp8.service")
    assert record.MARK in result["about"]


def test_settings_of_the_service_are_those_of_the_role():
    mine = {setting.name: getattr(Settings(), setting.name) for setting in fields(Settings)}
    known = {name: DEFAULTS[f"vllm_{name}"] for name in mine if f"vllm_{name}" in DEFAULTS}
    assert {**mine, "docker_args": list(mine["docker_args"])} == {**known, "several_keys": False, "systemd_version": 0}
    assert set(VARS["__vllm_settings"]) == set(mine)


@pytest.mark.parametrize("by_uuid", [True, False])
def test_every_gpu_is_named_and_nothing_else_is(by_uuid):
    text = render("vllm.service.j2", H100X8 if by_uuid else {**H100X8, "gpu_uuids": []})
    names = H100X8["gpu_uuids"] if by_uuid else H100X8["gpu_indices"]
    assert f" --timeout-s=120 {' '.join(map(str, names))}\n" in text
    assert ("By UUID" in text) is by_uuid
    assert [line.strip(" \\") for line in text.splitlines() if "--device=" in line and "#" not in line] == [
        f"--device=nvidia.com/gpu={name}" for name in names
    ]
    assert "--gpus" not in text.replace("(--gpus)", "")


def test_the_configuration_reads_back_as_the_plan_has_it():
    read = yaml.safe_load(render("config.yaml.j2", H100X8))
    assert read == {"shutdown-timeout": 30, **H100X8["config"]}
    assert list(read) == sorted(read)


@pytest.mark.parametrize(
    ("plan", "setting", "config", "stop"), [(None, None, 30, 75), (120, None, 120, 165), (120, "10", 10, 55)]
)
def test_the_stop_waits_longer_than_the_engine_drains(plan, setting, config, stop):
    instance = {**H100X8, "config": {**H100X8["config"], **({"shutdown-timeout": plan} if plan else {})}}
    read = yaml.safe_load(render("config.yaml.j2", instance, vllm_drain_timeout_s=setting))
    assert read["shutdown-timeout"] == config
    unit = render("vllm.service.j2", instance, vllm_drain_timeout_s=setting)
    assert f"TimeoutStopSec={stop}\n" in unit
    assert f"--stop-timeout={stop - 30} " in unit


@pytest.mark.parametrize(("version", "longest"), [(252, None), (257, 120)])
def test_the_pause_grows_where_systemd_can_do_that(version, longest):
    unit = render("vllm.service.j2", H100X8, ansible_facts={"systemd": {"version": version}})
    assert "\nRestartSec=15\n" in unit
    assert (f"\nRestartMaxDelaySec={longest}\nRestartSteps=3\n" in unit) is bool(longest)
    assert ("RestartSteps" in unit) is bool(longest)


@pytest.mark.parametrize("hang_s", [0, 300, 3600])
@pytest.mark.parametrize("drain_s", [30, 600])
@pytest.mark.parametrize("systemd", [252, 257])
def test_a_loop_of_starts_ends_however_slow_each_of_them_is(hang_s, drain_s, systemd):
    """It loads until its time is nearly up, answers, hangs at once, and takes its time to stop."""
    settings = {"vllm_hang_timeout_s": hang_s, "vllm_drain_timeout_s": drain_s, "vllm_gpu_timeout_s": 120}
    unit = render("vllm.service.j2", H100X8, ansible_facts={"systemd": {"version": systemd}}, **settings)
    value = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    pause = int(value.get("RestartMaxDelaySec", value["RestartSec"]))
    attempt = 120 + int(value["TimeoutStartSec"]) + 2 * hang_s + int(value["TimeoutStopSec"]) + pause
    starts = int(value["StartLimitBurst"])
    # The start that is one too many comes within the time after the first of them.
    assert starts * attempt < int(value["StartLimitIntervalSec"])


def test_engines_of_one_gpu_start_one_after_the_other():
    text = render("vllm.service.j2", {**H100X8, "starts_after": ["a", "b"]})
    assert "\nAfter=vllm-a.service vllm-b.service\n" in text
    assert "share" not in render("vllm.service.j2", H100X8)


def test_an_engine_waits_while_one_before_it_on_its_gpu_loads(tmp_path):
    """The unit's own script, with a systemctl whose first unit loads for two looks."""
    states = tmp_path / "states"
    states.write_text("start-pre\nstart-post\nrunning\nauto-restart\n")
    for name, body in {
        "systemctl": f'echo "$4" >>{tmp_path}/asked; head -n 1 {states}; sed -i 1d {states}',
        "sleep": f'echo "$1" >>{tmp_path}/slept',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    text = render("vllm.service.j2", {**H100X8, "starts_after": ["a", "b"]})
    (line,) = (line for line in text.splitlines() if "SubState" in line)
    command = shlex.split(line.partition("=")[2].replace("$$", "$"))
    subprocess.run(command, check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, timeout=20)
    assert (tmp_path / "asked").read_text().split() == ["vllm-a.service"] * 3 + ["vllm-b.service"]
    assert (tmp_path / "slept").read_text().split() == ["3", "2", "2"]


def test_a_slice_is_named_as_the_container_toolkit_does():
    text = render("vllm.service.j2", {**H100X8, "gpu_uuids": [], "gpu_indices": [1002]})
    assert "--device=nvidia.com/gpu=0:2 " in text
    assert " 0:2\n" in text  # and to the program that waits for its memory


def test_the_watchdog_knows_its_container():
    text = render("vllm.service.j2", H100X8, vllm_docker_program="/opt/docker bin/docker")
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStartPost=") and "vllm-wait.py" in line]
    assert line.endswith('--hang-s=300 --container=vllm-405b-fp8 "--docker=/opt/docker bin/docker"')
    assert "--container" not in render("vllm.service.j2", H100X8, vllm_hang_timeout_s=0)


@pytest.mark.parametrize("keys", [[], ["sk-one"], ["sk-one", "sk-two"]])
def test_keys_are_in_the_secret_files_alone(keys):
    texts = {kind: render(template, H100X8, vllm_api_keys=keys) for kind, template in TEMPLATES.items()}
    assert "sk-" not in texts["yaml"] + texts["service"]
    assert [line for line in texts["env"].splitlines() if line.startswith("VLLM_API_KEY=")] == [
        f"VLLM_API_KEY={key}" for key in keys[:1]
    ]
    if len(keys) > 1:
        both = yaml.safe_load(texts["yaml"] + texts["keys.yaml"])
        assert both["api-key"] == keys
        assert both["model"] == H100X8["repo_id"]


@pytest.mark.parametrize("several", [False, True])
def test_the_unit_puts_aside_the_files_that_are_compared(several):
    text = render("vllm.service.j2", H100X8, vllm_api_keys=["a", "b"] if several else [])
    wanted = service_of(H100X8, vllm_api_keys=["a", "b"] if several else [])["runs"]
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStartPre=") and "cp --parents" in line]
    assert line.split("' ")[1].split() == [wanted["started_from"], *wanted["files"]]


def test_an_engine_that_is_not_root_has_a_home_of_its_own():
    text = render("vllm.service.j2", H100X8, vllm_run_as_root=False, vllm_api_keys=["a", "b"])
    assert "--user=2000:0 --workdir=/home/vllm --env=HOME=/home/vllm " in text
    assert "/root" not in text
    assert "source=/var/cache/vllm/405b-fp8,target=/home/vllm " in text
    assert "target=/home/vllm/.cache/huggingface/hub,readonly" in text
    assert "ExecStartPre=/bin/chown 2000:0 /run/vllm-405b-fp8/config.yaml\n" in text
    own = "/var/cache/vllm/405b-fp8"
    homes = " ".join(own + below for below in ("", "/.cache", "/.cache/huggingface", "/.cache/huggingface/hub"))
    assert f"install --directory --mode=0750 --owner=2000 --group=0 {homes}\n" in text


def test_the_unit_names_what_is_its_own():
    text = render("vllm.service.j2", H100X8)
    belongs = old_unit.record_of("/etc/systemd/system/vllm-405b-fp8.service", text)
    assert belongs.name == "405b-fp8"
    assert belongs.image == H100X8["image"]
    assert belongs.files.cache == "/var/cache/vllm/405b-fp8"


def test_a_second_instance_goes_with_the_next_boot_and_ends_at_its_first_failure():
    (second,) = second_instances(
        [H100X8], [{"name": "405b-fp8", "port": 18000, "gpu_indices": [4, 5], "gpu_uuids": ["GPU-5", "GPU-6"]}]
    )
    text = render("vllm.service.j2", second)
    assert "[Install]" not in text
    assert "Restart=" not in text
    assert "ExecStartPost=-/usr/local/lib/gpunode/vllm-keep.sh" not in text
    assert "/vllm-back.sh st" not in text
    assert "--device=nvidia.com/gpu=GPU-5 " in text
    assert "--publish=127.0.0.1:18000:8000 " in text
    assert "/etc/systemd/system/vllm-405b-fp8-beside" not in text
    belongs = old_unit.record_of("/run/systemd/system/vllm-405b-fp8-beside.service", text)
    # What it shares with the first one is not its own to be removed.
    assert belongs.files.cache == ""
    assert "source=/var/cache/vllm/405b-fp8," in text
    assert "/var/cache/vllm/405b-fp8-beside" not in text


#: Where a tune runs its candidates: there is room for them, or they take the place of what serves.
ROOM = {"name": "405b-fp8", "port": 18000, "gpu_indices": [8, 9], "gpu_uuids": ["GPU-9", "GPU-10"]}
TRIALS = {"trial-beside": [ROOM], "trial-in-place": []}


@pytest.mark.parametrize("kind", ["service", "yaml", "env"])
@pytest.mark.parametrize("case", TRIALS)
def test_what_a_tune_starts_its_candidates_from(case, kind):
    (trial,) = trial_instances([H100X8], TRIALS[case])
    expected = HERE / "golden" / f"{case}.{kind}"
    text = render(TEMPLATES[kind], trial)
    if os.environ.get("GOLDEN_UPDATE"):
        expected.write_text(text)
    assert text == expected.read_text()


@pytest.mark.parametrize("case", TRIALS)
def test_candidates_answer_no_client_and_go_with_the_next_boot(case):
    (trial,) = trial_instances([H100X8], TRIALS[case])
    text, service = render("vllm.service.j2", trial), service_of(trial)
    assert service["in_place_of"] == ("" if TRIALS[case] else "vllm-405b-fp8.service")
    assert ("\nConflicts=vllm-405b-fp8.service\n" in text) is (not TRIALS[case])
    # The gateway does not know of it, nothing starts it again, and what serves keeps its last good set.
    assert not [
        word
        for word in (names.GATEWAY_UNIT, "[Install]", "Restart=", "=-/usr/local/lib/gpunode/vllm-keep")
        if word in text
    ]
    assert service["served"] == service_of(H100X8)["served"]
    # The job writes candidates from this: it is all that the file has.
    assert service["config"] == yaml.safe_load(render("config.yaml.j2", trial))
    own = {path for name, path in service["files"].items() if path and name != "cache"}
    assert {Path(path).parts[1] for path in own} == {"run"}
    assert "--publish=127.0.0.1:" in text
    assert ("--device=nvidia.com/gpu=GPU-9 " in text) is bool(TRIALS[case])


def test_a_second_instance_leaves_the_gateway_before_it_stops():
    (second,) = second_instances(
        [H100X8], [{"name": "405b-fp8", "port": 18000, "gpu_indices": [4, 5], "gpu_uuids": ["GPU-5", "GPU-6"]}]
    )
    text = render("vllm.service.j2", second)
    stops = [line for line in text.splitlines() if line.startswith("ExecStop=")]
    file = names.standby_file("405b-fp8")
    assert file in stops[0]
    assert f"systemctl try-reload-or-restart {names.GATEWAY_UNIT}" in stops[0]
    assert "docker stop" in stops[1]
    assert file not in render("vllm.service.j2", H100X8)
    # A unit's folder goes with it, so what does not answer any more is not asked.
    assert f"\nRuntimeDirectory={Path(file).parent.name}\n" in text
    # The other end of it: what the gateway takes in.
    (engine,) = gateway.engines([H100X8])
    assert engine["second"].rstrip("*") == file


def test_the_unit_waits_for_every_mount_that_it_uses():
    args = ["--volume=/mnt/a b:/x:ro", "-v", "/mnt/c:/y", "--mount=type=bind,source=/mnt/d,target=/z", "--network=host"]
    text = render("vllm.service.j2", H100X8, vllm_docker_args=args)
    (line,) = [line for line in text.splitlines() if line.startswith("RequiresMountsFor=")]
    places = shlex.split(line.partition("=")[2])
    assert {"/mnt/a b", "/mnt/c", "/mnt/d"} < set(places)
    used = ["/etc/vllm", "/var/cache/vllm/405b-fp8", "/var/lib/gpunode/vllm", "/var/lib/huggingface/hub"]
    assert {*used, DEFAULTS["vllm_back_program"], DEFAULTS["vllm_docker_program"]} < set(places)


LORA = [{"name": "sql", "repo_id": "org/sql", "revision": "1605565b47bb9346c5515c34102e054115b4f98b"}]


def test_an_adapter_is_seen_and_missed_where_the_weights_are():
    unit = render("vllm.service.j2", {**H100X8, "lora": LORA})
    hub = "/var/lib/huggingface/hub"
    assert unit.count("--mount=") == render("vllm.service.j2", H100X8).count("--mount=")
    asserted = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("AssertPathExists=")]
    assert [path.removeprefix(f"{hub}/").partition("/")[0] for path in asserted] == [
        "models--RedHatAI--Meta-Llama-3.1-405B-Instruct-FP8",
        "models--org--sql",
    ]


@pytest.mark.parametrize(("root", "home"), [(True, "/root"), (False, "/home/vllm")])
def test_an_adapter_of_a_model_in_a_folder_has_the_cache_beside_it(root, home):
    model = {**H100X8, "folder": "/srv/a", "repo_id": "/srv/a"}
    unit = render("vllm.service.j2", {**model, "lora": LORA}, vllm_run_as_root=root)
    hub = f"source=/var/lib/huggingface/hub,target={home}/.cache/huggingface/hub,readonly"
    assert hub in unit
    assert hub not in render("vllm.service.j2", model, vllm_run_as_root=root)
    mounts = next(line for line in unit.splitlines() if line.startswith("RequiresMountsFor="))
    assert {"/srv/a", "/var/lib/huggingface/hub"} <= set(mounts.partition("=")[2].split())


def test_a_draft_is_seen_and_missed_as_an_adapter_is():
    draft = {key: value for key, value in LORA[0].items() if key != "name"}
    unit = render("vllm.service.j2", {**H100X8, "folder": "/srv/a", "repo_id": "/srv/a", "draft": draft})
    assert "source=/var/lib/huggingface/hub,target=/root/.cache/huggingface/hub,readonly" in unit
    assert "AssertPathExists=/var/lib/huggingface/hub/models--org--sql/snapshots/" in unit


def test_a_folder_of_the_node_takes_the_place_of_the_cache():
    unit = render("vllm.service.j2", {**H100X8, "folder": "/srv/a, b", "repo_id": "/srv/a, b"})
    assert r'"--mount=type=bind,\"source=/srv/a, b\",target=/model,readonly"' in unit
    assert "target=/root/.cache/huggingface/hub" not in unit
    (mounts,) = [line for line in unit.splitlines() if line.startswith("RequiresMountsFor=")]
    assert "/var/lib/huggingface/hub" not in mounts
    assert '"/srv/a, b"' in mounts


def test_docker_brings_back_what_nobody_stopped():
    text = render("vllm.service.j2", H100X8)
    assert "ExecStartPre=-/bin/sh /usr/local/lib/gpunode/vllm-back.sh started vllm-405b-fp8.service\n" in text
    assert "ExecStopPost=-/bin/sh /usr/local/lib/gpunode/vllm-back.sh stopped vllm-405b-fp8.service\n" in text
    assert "WantedBy=docker.service" not in text  # that would bring back what somebody has stopped, too


AWKWARD = ["%n", "$HOME", "${X}", '"', "'", "\\", " ", ";", "#", "\n", "\r", "\t", "{{ 7 * 7 }}", "{% raw %}", "`id`"]
AWKWARD += ["&&", "|", ">", "é", "\u2028", "\x07", "=", ",", ":", "/", "a", "B", "9", "-", "--", "$(id)", "[Service]"]


def awkward(source):
    return "".join(source.choice(AWKWARD) for _each in range(source.randint(1, 8)))


def awkward_unit(source, name):
    instance = {
        **H100X8,
        "name": name,
        "served_model_name": awkward(source),
        "repo_id": awkward(source),
        "image": awkward(source),
        "shm_size": awkward(source),
        "host": source.choice(["127.0.0.1", "0.0.0.0", "::1", "::"]),
        "device": source.choice(["cpu", "cuda"]),
    }
    settings = {
        "vllm_docker_program": "/bin/true",
        "vllm_docker_args": [awkward(source) for _each in range(3)],
        "vllm_run_as_root": source.choice([True, False]),
        "vllm_ulimits": {"nofile": awkward(source)},
        "vllm_api_keys": ["a", "b"][: source.randint(0, 2)],
        "vllm_wait_program": f"/opt/{awkward(source)}",
    }
    return render("vllm.service.j2", instance, **settings)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here to say what it thinks of a unit")
def test_500_units_with_awkward_values_are_whole(tmp_path):
    source = random.Random(20261122)
    units = tmp_path / "units"
    units.mkdir()
    docker = "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/true\n"
    (units / "docker.service").write_text(docker)
    names = [f"case{number}" for number in range(500)]
    for name in names:
        (units / f"vllm-{name}.service").write_text(awkward_unit(source, name))
    # The folder comes first and systemd's own behind it, so that docker.service is found where there is no Docker.
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(units / f"vllm-{name}.service") for name in names)],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    complaints = [line for line in (verified.stdout + verified.stderr).splitlines() if "vllm-case" in line]
    assert complaints == []
    assert verified.returncode == 0, verified.stderr[-2000:]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here to say what it thinks of a unit")
def test_the_check_of_units_does_complain(tmp_path):
    """Without this, the test above would pass with a systemd-analyze that looks at nothing."""
    text = render("vllm.service.j2", H100X8, vllm_docker_program="/bin/true")
    broken = tmp_path / "vllm-broken.service"
    broken.write_text(text.replace("TimeoutStopSec=", "TimeoutStopSek="))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(broken)], capture_output=True, text=True, check=False
    )
    assert "TimeoutStopSek" in verified.stderr


def test_settings_and_their_specification_agree():
    spec = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    kinds = {
        "list": [list],
        "dict": [dict],
        "bool": [bool],
        "int": [int],
        "str": [str],
        "path": [str],
        "raw": [str, dict],
    }
    for entry in ("main", "image", "teardown"):
        options = spec[entry]["options"]
        assert {name: option.get("default") for name, option in options.items()} == DEFAULTS
        for name, option in options.items():
            kind = type(DEFAULTS[name])
            assert DEFAULTS[name] is None or kind in kinds[option["type"]], name
    assert {name for name, option in spec["main"]["options"].items() if option.get("no_log")} == {
        "vllm_api_keys",
        "vllm_hub_token",
        "vllm_secret_env",
    }


def test_secret_texts_are_an_option_that_ansible_never_logs():
    """Of a nested option with no_log the text did reach the node's journal."""
    module = (HERE.parents[3] / "plugins" / "module_utils" / "units" / "files.py").read_text()
    assert '"secrets": {"type": "dict", "default": {}, "no_log": True}' in module


def test_the_unit_of_a_pooling_model_asks_by_its_task():
    unit = render("vllm.service.j2", {**H100X8, "task": "embed"})
    plain = render("vllm.service.j2", {**H100X8, "task": "generate"})
    assert " --task=embed " in unit
    assert "counts as started when an embedding is answered" in unit
    assert plain == render("vllm.service.j2", H100X8)
    assert unit.replace(" --task=embed", "").replace("an embedding is", "a completion is") == plain


#: One engine over two nodes, as the planner hands out its parts.
def rank_of_a_group(rank, **group):
    node = {"size": 2, "nodes": ["n1", "n2"], "addresses": ["10.0.0.1", "10.0.0.2"], "head": "10.0.0.1"}
    link = {"master_port": 29501, "interface": "eth1", "hcas": ["mlx5_0", "mlx5_1"], "layers": [63, 63]}
    over = {
        "nnodes": 2,
        "node-rank": rank,
        "master-addr": "10.0.0.1",
        "master-port": 29501,
        "pipeline-parallel-size": 2,
    }
    config = {**H100X8["config"], **over, "host": H100X8["host"]}
    if rank:
        config = {key: value for key, value in config.items() if key not in ("host", "port")} | {"headless": True}
    own = {"VLLM_HOST_IP": node["addresses"][rank], "NCCL_SOCKET_IFNAME": "=eth1", "NCCL_IB_HCA": "=mlx5_0,mlx5_1"}
    env = {**H100X8["env"], **own}
    return {**H100X8, "config": config, "env": env, "group": {**node, **link, "rank": rank, **group}}


GROUPS = {"group-head": 0, "group-headless": 1}


@pytest.mark.parametrize("kind", ["service", "yaml", "env", "peer"])
@pytest.mark.parametrize("case", GROUPS)
def test_what_a_rank_of_an_engine_over_several_nodes_starts_from(case, kind):
    expected = HERE / "golden" / f"{case}.{kind}"
    text = render({**TEMPLATES, "peer": "gpunode-peer.service.j2"}[kind], rank_of_a_group(GROUPS[case]))
    if os.environ.get("GOLDEN_UPDATE"):
        expected.write_text(text)
    assert text == expected.read_text()


def test_ranks_agree_on_all_that_they_must_have_in_common():
    """Each tells its digest to the others at every start, and none starts with one that has another."""
    head, other = (service_of(rank_of_a_group(rank))["group"] for rank in (0, 1))
    assert head["digest"] == other["digest"]
    changed = rank_of_a_group(1)
    for differs in ({"image": "other"}, {"config": {**changed["config"], "max-model-len": 1}}, {"env": {"A": "b"}}):
        assert service_of({**changed, **differs})["group"]["digest"] != head["digest"]


def test_the_ranks_of_a_group_ask_each_other_where_they_answer():
    head, other = (service_of(rank_of_a_group(rank)) for rank in (0, 1))
    assert head["group"]["port"] == other["group"]["port"] == 29501 + names.PEER_PORTS
    for service in (head, other):
        (peer,) = service["peers"]
        text = render("gpunode-peer.service.j2", rank_of_a_group(service["group"]["rank"]))
        assert f"RuntimeDirectory={Path(peer['started_from']).parent.name}\n" in text
        assert all(path in text for path in peer["files"])
        assert service["group"]["state"].startswith(f"/run/{service['container']}/")
        assert f"Wants={peer['name']}" in render("vllm.service.j2", rank_of_a_group(service["group"]["rank"]))
        assert service["group"]["unit_file"] in [file["dest"] for file in service["to_write"]]
        assert json.loads(service["record"])["group"] == service["group"]
    assert (head["endpoint"]["rank"], other["endpoint"]["rank"], other["endpoint"]["head"]) == (0, 1, "n1")


def test_a_headless_rank_outlasts_the_stop_of_its_head():
    head, other = (service_of(rank_of_a_group(rank))["times"] for rank in (0, 1))
    assert head["leave_s"] == 0
    assert head["stop_s"] < other["leave_s"] < other["stop_s"]
    assert other["hang_s"] == 0 < head["hang_s"]
    for times in (head, other):
        assert 0 < times["meet_s"] < times["limit_s"]


def test_an_engine_on_one_node_has_nothing_of_a_group():
    service = service_of(H100X8)
    assert (service["group"], service["peers"], service["devices"]) == (None, [], [])
    assert "group" not in json.loads(service["record"])
    assert "rank" not in service["endpoint"]


def test_no_second_instance_runs_beside_a_rank():
    room = {"name": "405b-fp8", "port": 18000, "gpu_indices": [4], "gpu_uuids": ["GPU-5"]}
    assert second_instances([rank_of_a_group(0)], [room]) == []


def test_devices_for_rdma_are_given_where_there_are_adapters():
    assert "--device=/dev/infiniband" in render("vllm.service.j2", rank_of_a_group(0))
    assert "infiniband" not in render("vllm.service.j2", rank_of_a_group(0, hcas=[]))
