# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role writes: files that nginx and systemd read as they are meant, whatever is put into the settings.

Where there is no nginx its configuration is read by the few rules that nginx itself reads it by.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpunode.llm.plugins.module_utils.instance import known, names, old_unit
from ansible_collections.gpunode.llm.plugins.module_utils.tls import certificate as tls_certificate
from ansible_collections.gpunode.llm.plugins.plugin_utils.gateway import keys as gateway_keys, plan as gateway

ROLE = Path(__file__).parents[4] / "roles" / "gateway"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
VARS = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
INSTANCE = {"name": "8b", "host": "127.0.0.1", "port": 8000}
KEYS = {"ada": "sk-ada-" + "a" * 32, "grace": "sk-grace-" + "B" * 32}


def trusted(value):
    """A role's file as ansible reads it: every string may be a template."""
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def templar(settings):
    given = {"gateway_instances": [INSTANCE], "gateway_keys": KEYS, "ansible_facts": {}, "inventory_hostname": "gpu-1"}
    given |= {"role_path": str(ROLE)}
    given |= settings
    return Templar(loader=DataLoader(), variables={**DEFAULTS, **trusted(VARS), **given})


def render(template, **settings):
    """As the action plugin rendered_files does it."""
    text = trust_as_template((ROLE / "templates" / template).read_text())
    overrides = {"trim_blocks": True, "lstrip_blocks": True}
    return templar(settings).template(text, escape_backslashes=False, overrides=overrides).rstrip("\n") + "\n"


def findings(**settings):
    """What the role's first task would refuse, where it would."""
    task = trusted(yaml.safe_load((ROLE / "tasks" / "plan.yml").read_text()))[0]
    return templar(settings).template(task["gpunode.llm.refuse"]["findings"])


def words(text):
    """nginx's configuration as nested lists of words: a word is bare or quoted, a backslash takes a quote or itself."""
    stack, line = [[]], []
    for quoted, bare, sign in re.findall(r'#.*|("(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\')|([^\s;{}"\'#]+)|([;{}])', text):
        if quoted:
            line.append(re.sub(r'\\(["\'\\])', r"\1", quoted[1:-1]))
        elif bare:
            line.append(bare)
        elif sign == ";":
            stack[-1].append(line)
            line = []
        elif sign == "{":
            stack[-1].append([*line, []])
            stack.append(stack[-1][-1][-1])
            line = []
        elif sign == "}":
            assert line == []
            stack.pop()
    assert (len(stack), line) == (1, [])
    return stack[0]


def servers(text):
    """For each server its locations, by path."""
    (http,) = [line[-1] for line in words(text) if line[0] == "http"]
    found = [line[-1] for line in http if line[0] == "server"]
    return [{" ".join(line[1:-1]): line[-1] for line in server if line[0] == "location"} for server in found]


def upstreams(text):
    """Each engine's lines, by its name."""
    (http,) = [line[-1] for line in words(text) if line[0] == "http"]
    return {line[1]: line[-1] for line in http if line[0] == "upstream"}


def passes(text):
    """What goes to an engine, and where that listens."""
    address = {name: lines[0][1] for name, lines in upstreams(text).items()}
    return {
        path.removeprefix("= "): re.sub(r"(?<=^http://)engine-[^/]+", lambda name: address[name[0]], line[1])
        for server in servers(text)
        for path, lines in server.items()
        for line in lines
        if line[0] == "proxy_pass"
    }


def test_one_instance_is_at_the_root_and_below_its_name():
    engine = "http://127.0.0.1:8000"
    routes = ("/v1/chat/completions", "/v1/completions", "/v1/models")
    expected = {**{route: engine + route for route in routes}, **{f"/8b{route}": engine + route for route in routes}}
    assert passes(render("nginx.conf.j2")) == expected


def test_a_second_engine_gets_what_the_first_does_not_answer():
    assert upstreams(render("nginx.conf.j2")) == {
        "engine-8b": [["server", "127.0.0.1:8000", "max_fails=0"], ["include", f"{names.standby_file('8b')}*"]]
    }


SEVERAL = [INSTANCE, {"name": "70b", "host": "::1", "port": 8001}]


@pytest.mark.parametrize(("default", "root"), [("", None), ("70b", "http://[::1]:8001/v1/models")])
def test_of_several_instances_the_path_decides(default, root):
    found = passes(render("nginx.conf.j2", gateway_instances=SEVERAL, gateway_default_instance=default))
    assert found.get("/v1/models") == root
    assert found["/8b/v1/models"] == "http://127.0.0.1:8000/v1/models"
    assert found["/70b/v1/models"] == "http://[::1]:8001/v1/models"


def test_nothing_goes_to_an_engine_without_a_key_or_by_another_method():
    routes = ["GET /v1/models", "POST /v1/models", "POST /v1/score"]
    (gateway,) = servers(render("nginx.conf.j2", gateway_routes=routes))
    for lines in gateway.values():
        at = [line[0] for line in lines]
        if "proxy_pass" in at:
            conditions = [line for line in lines if line[0] == "if"]
            assert conditions[0] == ["if", "($gateway_key", "=", ")", [["return", "401"]]] or conditions[0][1:-1] == [
                "($gateway_key",
                "=",
                "",
                ")",
            ]
            assert conditions[0][-1] == [["return", "401"]]
            assert conditions[1][-1] == [["return", "405"]]
            assert {"limit_req", "limit_conn"} <= set(at)
    assert gateway["/"] == [["return", "404"]]


def test_metrics_have_a_door_of_their_own_or_none():
    assert len(servers(render("nginx.conf.j2"))) == 1
    settings = {
        "gateway_metrics_port": "9180",
        "gateway_metrics_host": "10.0.0.5",
        "gateway_metrics_allow": ["10.0.0.0/8"],
    }
    text = render("nginx.conf.j2", **settings)
    gateway, metrics = servers(text)
    assert not [path for path in gateway if "metrics" in path]
    assert [path for path in metrics if path != "/"] == ["= /8b/metrics", "= /metrics"]
    assert "    allow 10.0.0.0/8;\n    deny all;\n" in text


def test_an_authority_finds_what_it_looks_for_and_nothing_else():
    settings = {"gateway_acme_email": "ops@example.net", "gateway_names": ["llm.example.net", "10.0.0.5"]}
    text = render("nginx.conf.j2", **settings)
    _front, acme = servers(text)
    assert acme["/"] == [["return", "404"]]
    assert ["root", "/var/lib/gpunode/gateway/acme"] in acme["^~ /.well-known/acme-challenge/"]
    assert findings(**settings) == []
    assert old_unit.gateway_listens(render("gpunode-gateway.service.j2", **settings)) == [
        ("0.0.0.0", 443),
        ("0.0.0.0", 80),
    ]


def test_a_renewed_certificate_is_laid_where_the_front_reads_it(tmp_path):
    text = render("renewed.sh.j2", gateway_config_dir=str(tmp_path / "it's here"))
    (tmp_path / "it's here").mkdir()
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\necho $* >'{tmp_path}/told'\n")
    (tmp_path / "systemctl").chmod(0o755)
    for name in ("fullchain.pem", "privkey.pem"):
        (tmp_path / name).write_text(name)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RENEWED_LINEAGE": str(tmp_path)}
    subprocess.run(["sh", "-c", text], env=env, check=True)
    key, certificate = (tmp_path / "it's here" / name for name in ("certificate.key", "certificate.pem"))
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("privkey.pem", 0o600)
    assert (certificate.read_text(), certificate.stat().st_mode & 0o777) == ("fullchain.pem", 0o644)
    assert (tmp_path / "told").read_text() == "reload gpunode-gateway.service\n"


def test_keys_are_in_the_secret_file_alone():
    texts = {path.name: render(path.name, gateway_engine_key="sk-$engine") for path in (ROLE / "templates").iterdir()}
    held = texts.pop("keys.conf.j2")
    assert "sk-" not in "".join(texts.values())
    maps = {line[-2]: line[-1] for line in words(held)}
    assert maps["$gateway_expected"][1:] == [[f"Bearer {key}", f"{name} {key}"] for name, key in KEYS.items()]
    assert maps["$gateway_engine_authorization"] == [["default", "Bearer sk-$engine"]]
    secret = [file["src"] for file in VARS["__gateway_files"] if file.get("secret")]
    assert secret == ["keys.conf.j2", "keepalived-password.conf.j2"]


def test_of_keys_that_may_less_than_all_only_digests_are_written():
    keys = {**KEYS, "alan": {"key": "sk-alan-" + "c" * 32, "models": ["8b"]}}
    text = render("keys.conf.j2", gateway_keys=keys)
    assert "sk-" not in text
    assert all(hashlib.sha256(key.encode()).hexdigest() in text for key in (*KEYS.values(), keys["alan"]["key"]))


KEY = "sk-" + "x" * 32
REFUSED = [
    ({"gateway_keys": {}}, "gateway_keys is empty"),
    ({"gateway_keys": ["sk-" + "a" * 30]}, "gateway_keys must be a dictionary"),
    ({"gateway_keys": {"ada": "short"}}, "Key 1 of gateway_keys must be a text of 20 to 256"),
    ({"gateway_keys": {"ada": 'a"; } #' * 6}}, "Key 1 of gateway_keys"),
    ({"gateway_keys": {"ada": "x" * 257}}, "Key 1 of gateway_keys"),
    ({"gateway_keys": {"ada": 12345678901234567890}}, "Key 1 of gateway_keys"),
    ({"gateway_keys": {"a b": "x" * 32}}, "Name 1 of gateway_keys"),
    ({"gateway_keys": {"ada": "x" * 32, "grace": "X" * 32}}, "Two keys of gateway_keys are equal"),
    ({"gateway_keys": {"ada": {"models": ["8b"]}}}, "Key 1 of gateway_keys must have either key or sha256"),
    ({"gateway_keys": {"ada": {"key": KEY, "sha256": "a" * 64}}}, "must have either key or sha256"),
    ({"gateway_keys": {"ada": {"sha256": "A" * 64}}}, "sha256 of key 1 of gateway_keys must be the 64 hexadecimal"),
    ({"gateway_keys": {"ada": {"key": "short"}}}, "key of key 1 of gateway_keys must be a text of 20 to 256"),
    ({"gateway_keys": {"ada": {"key": KEY, "model": ["8b"]}}}, "Key 1 of gateway_keys can hold key, sha256, models"),
    ({"gateway_keys": {"ada": {"key": KEY, "models": []}}}, "must list at least one model"),
    ({"gateway_keys": {"ada": {"key": KEY, "expires": "2027-13-01"}}}, "must be a day such as 2027-01-31"),
    ({"gateway_keys": {"ada": {"key": KEY, "expires": "tomorrow"}}}, "must be a day such as 2027-01-31"),
    ({"gateway_keys": {"ada": {"key": KEY, "tokens_per_day": 0}}}, "must be between 1 and 1000000000000000, not 0"),
    ({"gateway_keys": {"ada": {"key": KEY, "requests_per_second": "x"}}}, "must be a whole number"),
    ({"gateway_keys": {"ada": KEY, "eve": {"sha256": hashlib.sha256(KEY.encode()).hexdigest()}}}, "are equal"),
    ({"gateway_keys": {"ada": {"key": KEY, "tokens_per_day": 5}}}, "set usage_enabled"),
    ({"gateway_port": "https"}, "gateway_port must be a whole number such as 443, not 'https'"),
    ({"gateway_port": 70000}, "gateway_port must be between 1 and 65535, not 70000"),
    ({"gateway_port": 8000}, "The gateway and 8b both want port 8000"),
    ({"gateway_host": "localhost"}, "gateway_host must be an address"),
    ({"gateway_host": "fe80::1%x;}\n"}, "gateway_host must be an address"),
    ({"gateway_names": ["fe80::1%x;}\n"]}, "which is neither a DNS name nor an address"),
    ({"gateway_metrics_allow": ["fe80::1%x;}/128"]}, "which is not a network"),
    ({"gateway_route_sets": ["agent"]}, "gateway_route_sets[0] must be one of agents"),
    ({"gateway_aliases": {"gpt 4": "8b"}}, "gateway_aliases holds 'gpt 4', which is not a model's name."),
    ({"gateway_aliases": {"gpt-4": {"8b": 0}}}, "The weight of a model in gateway_aliases['gpt-4'] must be between 1"),
    ({"gateway_aliases": {"gpt-4": {}}}, "a name that stands for no model"),
    ({"gateway_routes": []}, "gateway_routes is empty"),
    ({"gateway_routes": ["/v1/models"]}, "a route is a method and a whole path"),
    ({"gateway_routes": ["GET /v1/../metrics"]}, "a route is a method and a whole path"),
    ({"gateway_routes": ["GET /health"]}, "the gateway's health path"),
    ({"gateway_names": ["a b"]}, "neither a DNS name nor an address"),
    ({"gateway_certificate": "/a.pem"}, "must be set together"),
    ({"gateway_certificate": "a.pem", "gateway_certificate_key": "/a.key"}, "must be an absolute path"),
    ({"gateway_acme_email": "a@example.net"}, "ACME issues certificates for DNS names"),
    ({"gateway_acme_email": "a@example.net", "gateway_names": ["10.0.0.1"]}, "ACME issues certificates for DNS names"),
    ({"gateway_acme_email": "-x y"}, "gateway_acme_email must be a plain mail address"),
    ({"gateway_metrics_port": 443}, "listen twice at port 443"),
    ({"gateway_metrics_port": 9180, "gateway_metrics_host": "0.0.0.0"}, "Metrics would be open to everyone"),
    ({"gateway_metrics_allow": ["10.0.0.1/8"]}, "which is not a network"),
    ({"gateway_instances": [{**INSTANCE, "host": "0.0.0.0"}]}, "clients can bypass the gateway"),
    ({"gateway_instances": [{**INSTANCE, "name": "a;b"}]}, "is not a valid name for an instance"),
    ({"gateway_default_instance": "70b"}, "gateway_default_instance is '70b'; there is 8b."),
    ({"gateway_instances": [INSTANCE, {**INSTANCE, "port": 8001}]}, "Two instances would be reached at /8b/v1"),
    ({"ansible_facts": {"os_family": "RedHat"}}, "this node's system is RedHat's"),
    ({"gateway_max_body_mib": 0}, "gateway_max_body_mib must be between 1 and 4096"),
]


@pytest.mark.parametrize(("settings", "sentence"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_cannot_be_is_refused(settings, sentence):
    problems = findings(**settings)
    assert any(sentence in problem for problem in problems), problems
    for key in settings["gateway_keys"].values() if isinstance(settings.get("gateway_keys"), dict) else ():
        assert str(key) not in " ".join(problems)


def test_the_defaults_are_not_refused():
    assert findings() == []


def test_the_node_knows_what_its_front_listens_on(tmp_path):
    """By its record; by its unit, where an earlier release wrote that."""
    wanted = [("0.0.0.0", 443), ("127.0.0.1", 9180)]
    assert old_unit.gateway_listens(render("gpunode-gateway.service.j2", gateway_metrics_port=9180)) == wanted
    (tmp_path / "gateway.json").write_text(render("record.json.j2", gateway_metrics_port=9180))
    assert known.gateway_listens(str(tmp_path / "gateway.json"), "") == wanted


def test_the_gateway_is_compared_with_what_its_unit_puts_aside_and_its_record_is_not_among_that():
    (run,) = [task for task in yaml.safe_load((ROLE / "tasks" / "run.yml").read_text()) if "units_current" in str(task)]
    (unit,) = templar({}).template(trusted(run["gpunode.llm.units_current"]["units"]))
    text = render("gpunode-gateway.service.j2")
    assert (unit["name"], unit["started_from"]) == (names.GATEWAY_UNIT, names.started_from(names.GATEWAY_UNIT))
    assert f" {unit['started_from']} " in text
    assert f"\nRuntimeDirectory={Path(unit['started_from']).parent.name}\n" in text
    assert render("files.j2").split() == unit["files"]
    written = [file["dest"] for file in templar({}).template(trusted(VARS["__gateway_files"]))]
    assert names.GATEWAY_RECORD in written
    assert names.GATEWAY_RECORD not in unit["files"]


AWKWARD = ["%n", "$HOME", "${X}", '"', "'", "\\", " ", ";", "#", "\n", "\r", "\t", "{{ 7 * 7 }}", "{% raw %}", "`id`"]
AWKWARD += [
    "&&",
    "|",
    ">",
    "é",
    "\u2028",
    "\x07",
    "=",
    ",",
    ":",
    "/",
    "a",
    "B",
    "9",
    "-",
    "--",
    "$(id)",
    "}",
    "{",
    "*",
    "~",
]


def awkward(source, begin=""):
    return begin + "".join(source.choice(AWKWARD) for _each in range(source.randint(1, 8)))


def odd(source):
    """A value of any type."""
    values = [
        None,
        True,
        -1,
        0,
        10**9,
        1.5,
        "",
        "7",
        awkward(source),
        [awkward(source)],
        {"a": awkward(source)},
        [None],
    ]
    return source.choice(values)


IN_A_TEXT = re.compile(r"[\x00-\x1f\x7f]")
IN_A_PATH = re.compile(r"[$\x00-\x1f\x7f]")


def a_text(source, not_in_it=IN_A_TEXT):
    """Most of them hold nothing that cannot be where they go."""
    text = awkward(source)
    return text if source.random() < 0.1 else not_in_it.sub("", text)


def a_path(source, below):
    return f"{below}/x{a_text(source, IN_A_PATH)}"


def settings(source, below):
    """Texts are awkward where they may be any text, and now and then where they may not."""
    given = {
        "gateway_engine_key": "sk-" + a_text(source),
        "gateway_config_dir": a_path(source, "/etc"),
        "gateway_certificate": a_path(source, below) + ".pem",
        "gateway_certificate_key": a_path(source, below) + ".key",
        "gateway_nginx_program": "/bin/true",
        "gateway_keys": KEYS,
        "gateway_instances": [INSTANCE],
    }
    others = sorted(set(DEFAULTS) - set(given) - {"gateway_enabled", "gateway_acme_url", "gateway_acme_webroot"})
    given |= {name: odd(source) for name in source.sample(others, 2) if source.random() < 0.3}
    if source.random() < 0.2:
        given["gateway_keys"] = {awkward(source): awkward(source, "sk-" + "a" * 20)}
    if source.random() < 0.2:
        given["gateway_instances"] = [{**INSTANCE, "name": awkward(source)}]
    return given


def asked(given):
    """What the role asks the filter gateway_plan."""
    return {name: given.get(f"gateway_{name}", DEFAULTS[f"gateway_{name}"]) for name in gateway.READERS}


SPEC = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
WRITTEN = ("nginx.conf", "keys.conf", "gpunode-gateway.service")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    """Settings; what is refused, by ansible's own look at the types or by the role's first task, or the files."""
    source, below = random.Random(20261123), str(tmp_path_factory.mktemp("srv"))
    cases = []
    for _each in range(520):
        given = settings(source, below)
        problems = ArgumentSpecValidator(SPEC).validate(given).error_messages
        problems = problems or gateway_keys.findings(given["gateway_keys"], given["gateway_engine_key"])
        if not problems:
            # Asked for once: to have it anew for each file takes most of the time.
            given["__gateway_plan"] = gateway.plan(asked(given), given["gateway_instances"])
            problems = given["__gateway_plan"]["findings"]
        cases.append((given, problems, {} if problems else {name: render(f"{name}.j2", **given) for name in WRITTEN}))
    return cases


def test_500_fuzzed_settings_end_in_a_sentence_or_in_files(fuzzed):
    refused = [(given, message) for given, message, _files in fuzzed if message]
    assert len(refused) > 100
    assert len(fuzzed) - len(refused) > 100
    for given, problems in refused:
        text = " ".join(problems)
        assert re.search(r"gateway|engine|instance|Metrics|ACME", text), text
        if given["gateway_keys"] is not KEYS:
            assert not [key for key in given["gateway_keys"].values() if key in text]


def test_fuzzed_texts_are_each_one_word_of_nginx(fuzzed):
    for given, _said, files in fuzzed:
        if not files:
            continue
        (http,) = [line[-1] for line in words(files["nginx.conf"]) if line[0] == "http"]
        gateway = next(line[-1] for line in http if line[0] == "server")
        assert ["ssl_certificate", given["gateway_certificate"]] in gateway
        assert ["ssl_certificate_key", given["gateway_certificate_key"]] in gateway
        *_maps, engine = words(files["keys.conf"])
        assert engine[-1] == [["default", f"Bearer {given['gateway_engine_key']}"]]
        own = {"ssl_certificate", "ssl_certificate_key"}
        assert {line[0] for line in gateway} - own == {"listen", "add_header", "error_page", "location"}
        for engine in passes(files["nginx.conf"]).values():
            assert re.fullmatch(r"http://127\.0\.0\.1:8000/[\w/.-]+", engine)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here to say what it thinks of a unit")
def test_fuzzed_units_are_whole(fuzzed, tmp_path):
    units = [files["gpunode-gateway.service"] for _given, _said, files in fuzzed if files]
    for number, text in enumerate(units):
        (tmp_path / f"gateway-case{number}.service").write_text(text)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    complaints = [line for line in (verified.stdout + verified.stderr).splitlines() if "gateway-case" in line]
    assert complaints == []
    assert verified.returncode == 0, verified.stderr[-2000:]


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not here to say what it thinks of its configuration")
def test_nginx_reads_fuzzed_configurations(fuzzed, tmp_path):
    words = tls_certificate.self_signed(str(tmp_path / "pem"), str(tmp_path / "key"), ["localhost"], 2)
    subprocess.run(words, check=True, capture_output=True)
    for given, _said, files in fuzzed:
        if not files:
            continue
        for setting, made in (("gateway_certificate", "pem"), ("gateway_certificate_key", "key")):
            path = Path(given[setting])
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / made, path)
        for name in ("nginx.conf", "keys.conf"):
            (tmp_path / name).write_text(files[name])
        line = ["nginx", "-t", "-q", "-p", f"{tmp_path}/", "-c", str(tmp_path / "nginx.conf")]
        read = subprocess.run(line, capture_output=True, text=True, check=False)
        assert read.returncode == 0, (read.stderr, given)


def test_settings_and_their_specification_agree():
    specs = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    for entry in specs.values():
        assert {name: option.get("default") for name, option in entry["options"].items()} == DEFAULTS
    secret = {"gateway_keys", "gateway_engine_key", "gateway_shared_password"}
    assert {name for name, option in SPEC.items() if option.get("no_log")} == secret


def test_the_planner_s_defaults_are_the_role_s():
    for field in dataclasses.fields(gateway.Settings):
        role = DEFAULTS[f"gateway_{field.name}"]
        default = getattr(gateway.Settings(), field.name)
        assert default == (gateway.READERS[field.name](role) if role is not None else None), field.name


def test_the_role_s_settings_are_the_planner_s():
    own = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__gateway_settings"]
    assert set(own) == {field.name for field in dataclasses.fields(gateway.Settings)}


def test_the_node_is_asked_for_what_the_gateway_needs_of_it():
    """preflight takes `gateway_needs`: a certificate that the role makes itself is not looked for."""
    needs = templar({"gateway_port": 8443}).template(trust_as_template("{{ gateway_needs }}"))
    assert needs == {"listens": [{"host": "0.0.0.0", "port": 8443}], "certificate": "", "certificate_key": ""}
    own = {"gateway_certificate": "/srv/own.pem", "gateway_certificate_key": "/srv/own.key"}
    needs = templar(own).template(trust_as_template("{{ gateway_needs }}"))
    assert (needs["certificate"], needs["certificate_key"]) == ("/srv/own.pem", "/srv/own.key")
    spec = yaml.safe_load((ROLE.parent / "preflight" / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    # The router's ports come from that role.
    assert set(spec["main"]["options"]["preflight_gateway"]["options"]) == {*needs, "router"}


def test_another_certificate_is_no_other_unit():
    """The unit takes a restart, which cuts streams; where the certificate's mounts stand takes a reload."""
    own = {"gateway_certificate": "/srv/tls/own.pem", "gateway_certificate_key": "/mnt/keys/own.key"}
    assert render("gpunode-gateway.service.j2", **own) == render("gpunode-gateway.service.j2")
    text = render("mounts.conf.j2", **own)
    for key in ("Wants", "After"):
        (line,) = (line for line in text.splitlines() if line.startswith(f"{key}="))
        assert {"mnt-keys.mount", "srv-tls.mount", "var-log.mount"} <= set(line.partition("=")[2].split())


def test_the_front_goes_on_without_the_mounts_that_it_was_started_from():
    """What requires a mount goes down with it, and nothing starts it again."""
    assert "RequiresMountsFor" not in render("gpunode-gateway.service.j2") + render("mounts.conf.j2")


AGENTS = ("/v1/responses", "/v1/messages", "/v1/messages/count_tokens")


def test_agents_have_their_routes_at_each_model_that_generates():
    pooling = {"name": "p", "port": 8001, "task": "embed"}
    found = passes(render("nginx.conf.j2", gateway_route_sets="agents", gateway_instances=[INSTANCE, pooling]))
    assert {f"/8b{path}" for path in AGENTS} <= set(found)
    assert not [path for path in found if path.startswith("/p/") and path.endswith(AGENTS)]
    router = {"first": "127.0.0.1:30000", "second": "127.0.0.1:30001"}
    behind = passes(render("nginx.conf.j2", gateway_route_sets=["agents"], gateway_router=router))
    assert {*AGENTS, "/v1/embeddings", "/v1/models"} <= set(behind)
    assert not set(AGENTS) & set(passes(render("nginx.conf.j2")))


SCORES = ("/v1/score", "/score", "/v1/rerank", "/rerank")


@pytest.mark.parametrize(
    ("task", "routes"),
    [
        ("embed", ("/v1/embeddings", *SCORES)),
        ("rerank", (*SCORES, "/classify")),
        ("classify", ("/classify",)),
        ("pooling", ("/pooling",)),
    ],
)
def test_a_pooling_model_has_the_routes_of_its_task_alone(task, routes):
    text = render("nginx.conf.j2", gateway_instances=[INSTANCE, {**INSTANCE, "name": "p", "task": task}])
    found = passes(text)
    methods = dict(re.findall(r'location = (\S+) \{\n(?:.*\n)*?.*request_method !~ "\^\(\?:(.*?)\)', text))
    assert {path: methods[f"/p{path}"] for path in routes} == dict.fromkeys(routes, "POST")
    assert methods["/p/v1/models"] == "GET"
    own = {path.removeprefix("/p") for path in found if path.startswith("/p/")}
    assert own == {"/v1/models", *routes}
    other = {path.removeprefix("/8b") for path in found if path.startswith("/8b/")}
    assert other == {"/v1/chat/completions", "/v1/completions", "/v1/models"}


def test_routes_that_the_user_lists_are_all_that_pass():
    found = passes(
        render("nginx.conf.j2", gateway_instances=[{**INSTANCE, "task": "embed"}], gateway_routes=["GET /v1/models"])
    )
    assert set(found) == {"/v1/models", "/8b/v1/models"}


# -- before a router --------------------------------------------------------------------------------------------------
ROUTER = {"first": "127.0.0.1:30000", "second": "127.0.0.1:30001"}
TWO = [INSTANCE, {"name": "e5", "host": "0.0.0.0", "port": 8001, "task": "embed"}]


def test_the_router_has_the_root_and_each_instance_its_name():
    text = render("nginx.conf.j2", gateway_instances=TWO, gateway_router=ROUTER)
    places = servers(text)[0]
    assert ["proxy_pass", "http://router/v1/embeddings"] in places["= /v1/embeddings"]
    assert ["proxy_pass", "http://router/v1/chat/completions"] in places["= /v1/chat/completions"]
    assert ["proxy_pass", "http://engine-8b/v1/models"] in places["= /8b/v1/models"]
    assert ["proxy_pass", "http://engine-e5/v1/embeddings"] in places["= /e5/v1/embeddings"]
    # One that just starts knows no engine yet.
    (asked,) = [line for line in places["= /v1/models"] if line[0] == "proxy_next_upstream"]
    assert {"error", "http_404", "http_503", "non_idempotent"} <= set(asked)
    assert not [line for line in places["= /8b/v1/models"] if line[0] == "proxy_next_upstream"]
    assert upstreams(text)["router"] == [
        ["server", ROUTER["first"], "max_fails=0"],
        ["server", ROUTER["second"], "max_fails=0", "backup"],
    ]


def headers(lines, directive):
    return {line[1].lower(): line[2:] for line in lines if line[0] == directive}


def test_clients_neither_choose_an_engine_nor_learn_which_it_was():
    """The router takes a choice from a header, and names the engine's address in another one."""
    (http,) = [line[-1] for line in words(render("nginx.conf.j2", gateway_router=ROUTER)) if line[0] == "http"]
    sent, hidden = headers(http, "proxy_set_header"), headers(http, "proxy_hide_header")
    assert (sent["x-smg-target-worker"], sent["x-smg-priority"]) == ([""], [""])
    assert {"x-smg-routed-worker-id", "x-smg-cache-trace"} <= set(hidden)


def test_what_the_router_says_of_a_dead_engine_is_said_by_the_gateway():
    """Its own words have the engine's address. What is wrong with a request is the engine's or the router's to say."""
    places = servers(render("nginx.conf.j2", gateway_router=ROUTER))[0]
    routed = places["= /v1/chat/completions"]
    assert ["proxy_intercept_errors", "on"] in routed
    pages = {code: line[-1] for line in routed if line[0] == "error_page" for code in line[1:-2]}
    assert {pages[code] for code in ("500", "502", "503")} == {"@no_engine"}
    assert not {"400", "404", "422"} & set(pages)
    assert {*pages.values()} <= set(places)
    assert not [line for line in places["= /8b/v1/models"] if line[0] in ("error_page", "proxy_intercept_errors")]


def test_an_answer_its_line_in_the_journal_and_the_engine_have_one_id():
    """A location with a header of its own has none of the server's."""
    text = render("nginx.conf.j2")
    (http,) = [line[-1] for line in words(text) if line[0] == "http"]
    assert headers(http, "proxy_set_header")["x-request-id"] == ["$request_id"]
    assert "x-request-id" in headers(http, "proxy_hide_header")
    (line,) = [" ".join(line) for line in http if line[0] == "log_format"]
    assert line.endswith(" $request_id $gateway_engine")
    (server,) = [line[-1] for line in http if line[0] == "server"]
    for lines in (server, *(lines for lines in servers(text)[0].values() if headers(lines, "add_header"))):
        assert headers(lines, "add_header")["x-request-id"] == ["$request_id", "always"]


PEERS = {"gpu-1": "10.0.0.11", "gpu-2": "10.0.0.12"}
SHARED = {"gateway_shared_address": "10.0.0.100", "gateway_shared_peers": PEERS, "gateway_shared_interface": "eth1"}


def blocks(text):
    """keepalived's configuration: for each line its words, below the heads of the blocks around it."""
    around, found = [], {}
    for line in filter(None, (line.split("#")[0].strip() for line in text.splitlines())):
        if line.endswith("{"):
            around.append(line[:-1].strip())
        elif line == "}":
            around.pop()
        else:
            found.setdefault(" ".join(around), []).append(line)
    assert around == []
    return found


def test_hosts_that_share_an_address_tell_each_other():
    found = blocks(render("keepalived.conf.j2", **SHARED, gateway_port=8443))
    assert found["vrrp_instance gateway unicast_peer"] == ["10.0.0.12"]
    assert found["vrrp_instance gateway virtual_ipaddress"] == ["10.0.0.100"]
    assert found["vrrp_instance gateway track_script"] == ["gateway"]
    assert {"interface eth1", "priority 200", "unicast_src_ip 10.0.0.11"} <= set(found["vrrp_instance gateway"])
    assert found["vrrp_script gateway"][0].endswith(' https://127.0.0.1:8443/health"')
    second = blocks(render("keepalived.conf.j2", **SHARED, inventory_hostname="gpu-2"))["vrrp_instance gateway"]
    assert {"priority 199", "unicast_src_ip 10.0.0.12"} <= set(second)


def test_an_address_leaves_a_host_whose_router_is_gone():
    found = blocks(render("keepalived.conf.j2", **SHARED, gateway_router=ROUTER))
    assert found["vrrp_instance gateway track_script"] == ["gateway", "router"]
    (script,) = [line for line in found["vrrp_script router"] if line.startswith("script")]
    assert f"{ROUTER['first']}/liveness || " in script
    assert f"{ROUTER['second']}/liveness" in script


def test_a_certificate_is_for_the_shared_address_as_well():
    names = templar(SHARED).template(trust_as_template("{{ __gateway_certificate_names }}"))
    assert names == ["localhost", "10.0.0.100", "127.0.0.1"]
    names = templar({}).template(trust_as_template("{{ __gateway_certificate_names }}"))
    assert names == ["localhost", "127.0.0.1"]
    shown = templar({**SHARED, "gateway_port": 8443}).template(trust_as_template("{{ __gateway_plan.urls['8b'] }}"))
    assert shown == "https://10.0.0.100:8443/v1"


def test_a_password_is_in_its_own_file():
    text = render("keepalived-password.conf.j2", **SHARED, gateway_shared_password="s3cret")
    assert blocks(text) == {"authentication": ["auth_type PASS", "auth_pass s3cret"]}
    assert blocks(render("keepalived-password.conf.j2", **SHARED)) == {}
    every = [render(path.name, **SHARED, gateway_shared_password="s3cret") for path in (ROLE / "templates").iterdir()]
    assert sum("s3cret" in text for text in every) == 1


def test_without_a_shared_address_there_is_nothing_of_it():
    """A file is there or goes with its address, and so does the unit."""
    of_it = ("keepalived.conf.j2", "keepalived-password.conf.j2", "gpunode-gateway-address.service.j2")
    for settings, expected in (({}, False), (SHARED, True)):
        files = templar(settings).template(trusted(VARS["__gateway_files"]))
        assert [file["present"] for file in files if file["src"] in of_it] == [expected] * 3
        units = templar(settings).template(trusted(VARS["__gateway_units"]))
        assert [unit["name"] for unit in units] == [names.GATEWAY_UNIT, *[names.GATEWAY_ADDRESS_UNIT] * expected]


NOT_SHARED = [
    ({"gateway_shared_address": "fd00::1"}, "gateway_shared_address must be an IPv4 address such as 10.0.0.100"),
    ({"gateway_shared_interface": "eth0; x"}, "gateway_shared_interface must be the name of an interface such as eth0"),
    ({"gateway_shared_router_id": 256}, "gateway_shared_router_id must be between 1 and 255, not 256"),
    ({"gateway_shared_peers": {"gpu-1": "10.0.0.11"}}, "10.0.0.100 needs two hosts with a gateway"),
    ({"inventory_hostname": "gpu-3"}, "and the inventory has gpu-1, gpu-2."),
    ({"gateway_shared_peers": {**PEERS, "gpu-2": ""}}, "No IPv4 address of gpu-2 is known here"),
    ({"gateway_shared_address": "10.0.0.12"}, "gateway_shared_address is 10.0.0.12, the address of gpu-2 itself."),
    ({"gateway_shared_interface": ""}, "has no interface: set gateway_shared_interface."),
    ({"gateway_host": "10.0.0.11"}, "gateway_host is 10.0.0.11, where 10.0.0.100 is not heard"),
    ({"gateway_acme_email": "a@example.net", "gateway_names": ["a.example.net"]}, "reaches only the one that has"),
    ({"gateway_shared_password": "longer-than-8"}, "gateway_shared_password must be at most 8 letters and digits"),
]


@pytest.mark.parametrize(("settings", "sentence"), NOT_SHARED)
def test_an_address_that_cannot_be_shared(settings, sentence):
    assert any(sentence in finding for finding in findings(**{**SHARED, **settings}))
    assert "longer" not in str(findings(**{**SHARED, **settings}))


def test_an_address_that_can_be_shared():
    assert findings(**SHARED) == []
    facts = {"default_ipv4": {"interface": "eth9"}}
    text = render("keepalived.conf.j2", **{**SHARED, "gateway_shared_interface": "", "ansible_facts": facts})
    assert "interface eth9" in blocks(text)["vrrp_instance gateway"]


def test_a_router_needs_no_engine_of_its_own_host():
    text = render("nginx.conf.j2", gateway_instances=[], gateway_router=ROUTER)
    assert set(upstreams(text)) == {"router"}
    assert findings(gateway_instances=[], gateway_router=ROUTER) == []


def test_routes_that_the_user_lists_are_those_of_the_router():
    text = render("nginx.conf.j2", gateway_router=ROUTER, gateway_routes=["GET /v1/models"])
    assert {path for path in servers(text)[0] if path.startswith("= /")} == {
        "= /health",
        "= /v1/models",
        "= /8b/v1/models",
    }


def test_behind_a_router_an_engine_may_listen_where_that_reaches_it():
    wide = [{**INSTANCE, "host": "10.0.0.1"}]
    assert "clients can bypass the gateway" in findings(gateway_instances=wide)[0]
    assert findings(gateway_instances=wide, gateway_router={"elsewhere": True}) == []
    assert "upstream router" not in render("nginx.conf.j2", gateway_instances=wide, gateway_router={"elsewhere": True})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"gateway_router": {"third": "x"}}, "gateway_router must hold first and second"),
        ({"gateway_router": ROUTER, "gateway_default_instance": "8b"}, "so leave out gateway_default_instance"),
        (
            {
                "gateway_router": ROUTER,
                "gateway_instances": [{**INSTANCE, "name": "v1"}],
                "gateway_routes": ["GET /v1/models", "GET /models"],
            },
            "The router has /v1/models, and so would v1: rename it.",
        ),
    ],
)
def test_what_cannot_be_before_a_router(settings, sentence):
    assert any(sentence in finding for finding in findings(**settings))


def test_without_a_router_nginx_spreads_the_requests_of_each_model():
    models = {"8b": ["10.0.0.1:8000", "10.0.0.2:8000"], "70b": ["10.0.0.3:8000"]}
    settings = {"gateway_instances": [{**INSTANCE, "host": "10.0.0.1"}], "gateway_router": {"models": models}}
    text = render("nginx.conf.j2", **settings)
    assert findings(**settings) == []
    assert upstreams(text)["fleet-8b"] == [
        ["least_conn"],
        *(["server", address, "max_fails=2", "fail_timeout=5s"] for address in models["8b"]),
    ]
    places = servers(text)[0]
    assert ["proxy_pass", "http://fleet-8b/v1/chat/completions"] in places["= /8b/v1/chat/completions"]
    assert ["proxy_pass", "http://fleet-70b/v1/embeddings"] in places["= /70b/v1/embeddings"]
    assert "= /v1/models" not in places
    default = render("nginx.conf.j2", **settings, gateway_default_instance="8b")
    assert ["proxy_pass", "http://fleet-8b/v1/models"] in servers(default)[0]["= /v1/models"]
    assert findings(gateway_instances=[], gateway_router={"models": {}}) == []
    alone = render("nginx.conf.j2", gateway_instances=[], gateway_router={"models": {"8b": models["8b"]}})
    assert ["proxy_pass", "http://fleet-8b/v1/models"] in servers(alone)[0]["= /v1/models"]
