# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates: made by openssl itself, and looked at with the eyes of a server."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.preflight import checks as preflight_checks
from ansible_collections.gpunode.llm.plugins.module_utils.tls import certificate as tls_certificate
from ansible_collections.gpunode.llm.plugins.modules import gateway_info, self_signed_certificate

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not here")
NAMES = ["llm.example.net", "10.0.0.5", "fe80::1"]


def run(words):
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def made(tmp_path):
    """A certificate's and its key's path; ``days`` and names as a test wants them."""

    def make(*names, days=3650):
        pair = str(tmp_path / "a.pem"), str(tmp_path / "a.key")
        assert run(tls_certificate.self_signed(*pair, names or NAMES, days))[0] == 0
        return pair

    return make


@pytest.mark.parametrize(
    ("made_for", "days", "wanted", "trouble"),
    [
        (NAMES, 3650, NAMES, ""),
        (NAMES, 3650, [*NAMES[1:], NAMES[0]], ""),
        (NAMES, 3650, NAMES[:2], "is for other names than DNS:llm.example.net, IP:10.0.0.5"),
        (NAMES, 20, NAMES, "ends within 30 days"),
        ([f"{'long' * 10}.{'name' * 10}.example.net"], 60, [f"{'long' * 10}.{'name' * 10}.example.net"], ""),
    ],
)
def test_a_self_signed_one_is_kept_while_it_is_good(made, made_for, days, wanted, trouble):
    message = tls_certificate.self_signed_trouble(*made(*made_for, days=days), wanted, run)
    assert message.endswith(trouble)
    assert bool(message) is bool(trouble)


def test_a_pair_is_looked_at_as_a_server_does(made, tmp_path):
    certificate, key = made()
    assert tls_certificate.pair_trouble(certificate, key) == ""
    assert tls_certificate.pair_trouble(certificate, f"{key}x") == f"There is no file {key}x"
    other = str(tmp_path / "other.key")
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", other])
    assert tls_certificate.pair_trouble(certificate, other) == f"{other} is not the key of {certificate}"
    run(["openssl", "ec", "-in", key, "-aes128", "-passout", "pass:hush", "-out", other])
    assert "cannot be used together" in tls_certificate.pair_trouble(certificate, other)
    (tmp_path / "a.pem").write_text("no certificate")
    assert "cannot be used together" in tls_certificate.pair_trouble(certificate, key)


def call(module, capsys, **args):
    with patch_module_args(args), pytest.raises(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


def test_the_module_makes_one_once(capsys, tmp_path):
    pair = {"path": str(tmp_path / "new" / "a.pem"), "key_path": str(tmp_path / "new" / "a.key")}
    internal = {"_ansible_remote_tmp": str(tmp_path / "tmp")}
    request = {**pair, "names": NAMES, **internal}
    assert call(self_signed_certificate, capsys, **request, _ansible_check_mode=True)["changed"] is True
    assert not (tmp_path / "new").exists()
    assert "There is no file" in call(self_signed_certificate, capsys, **request)["why"]
    assert (tmp_path / "new" / "a.key").stat().st_mode & 0o777 == 0o600
    assert call(self_signed_certificate, capsys, **request)["changed"] is False
    assert call(self_signed_certificate, capsys, **{**request, "names": ["other"]})["changed"] is True
    assert call(self_signed_certificate, capsys, **{**request, "names": []})["failed"] is True


@pytest.mark.parametrize(
    ("mark", "program", "installed", "ours"),
    [
        ("", True, True, False),
        ("", False, False, False),
        ("begun", True, False, True),
        ("done", True, True, True),
        ("done", False, False, True),
    ],
)
def test_an_installation_that_was_stopped_is_no_installation(capsys, tmp_path, mark, program, installed, ours):
    if mark:
        (tmp_path / "marker").write_text(f"{mark}\n")
    result = call(
        gateway_info,
        capsys,
        program="/bin/true" if program else str(tmp_path / "none"),
        marker=str(tmp_path / "marker"),
        certificate=str(tmp_path / "a.pem"),
        certificate_key=str(tmp_path / "a.key"),
        names=NAMES,
    )
    assert (result["installed"], result["ours"]) == (installed, ours)
    assert result["certificate_trouble"] == f"There is no file {tmp_path}/a.pem"


HOLDS = [("0.0.0.0", 443), ("127.0.0.1", 9180)]
WANTED = [{"host": "0.0.0.0", "port": 443}, {"host": "127.0.0.1", "port": "9180"}]


@pytest.mark.parametrize(
    ("up", "holds", "free", "taken"),
    [
        (False, [], True, []),
        (False, HOLDS, False, ["0.0.0.0:443", "127.0.0.1:9180"]),  # it is not up, so somebody else is there
        (True, HOLDS, False, []),
        (True, [("0.0.0.0", 8443), HOLDS[1]], False, ["0.0.0.0:443"]),
        (True, [], False, ["0.0.0.0:443", "127.0.0.1:9180"]),
    ],
)
def test_ports_of_the_front(up, holds, free, taken):
    found = preflight_checks.check_gateway(
        {"listens": WANTED}, lambda _w: (0 if up else 3, "", ""), holds, lambda *_a: free
    )
    assert [sentence.split(" on ")[1].split(": ")[0] for sentence in found] == taken


def test_a_certificate_of_the_operator_s_is_looked_at(made):
    certificate, key = made()
    pair = {"certificate": certificate, "certificate_key": key}
    assert preflight_checks.check_gateway(pair, run, []) == []
    assert preflight_checks.check_gateway({}, None, []) == []
    (message,) = preflight_checks.check_gateway({**pair, "certificate": "/none.pem"}, run, [])
    assert message == "There is no file /none.pem; the gateway needs a certificate and its key on the node."
    (message,) = preflight_checks.check_gateway(pair, lambda _words: (1, "", ""), [])
    assert message.startswith(f"{certificate} has expired;")


@pytest.mark.parametrize(
    ("runs", "taken", "expected"),
    [
        (False, {30001}, ["The router cannot listen on 127.0.0.1:30001: the port is in use."]),
        (True, {30001}, []),
        (False, set(), []),
    ],
)
def test_the_routers_ports_are_its_own_while_it_runs(runs, taken, expected):
    listens = [{"host": "127.0.0.1", "port": port} for port in (30000, 30001)]
    found = preflight_checks.check_gateway(
        {"router": listens}, lambda _words: (0 if runs else 3, "", ""), [], lambda _host, port: port not in taken
    )
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True))
