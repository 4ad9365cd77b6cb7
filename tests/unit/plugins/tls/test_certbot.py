# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When certbot is asked again: where it keeps something else than is wanted, and never where it does not."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.tls import (
    certbot as tls_certbot,
    certificate as tls_certificate,
)
from ansible_collections.gpunode.llm.plugins.modules import gateway_info

ASKED = tls_certbot.Request(
    names=["a.test", "B.test"],
    server="https://one.test/directory",
    webroot="/var/lib/gpunode/gateway/acme",
    hook="/etc/gpunode/gateway/renewed.sh",
    email="ops@example.net",
)
# As certbot 2.1.0 writes it, with other values.
RENEWAL = """# renew_before_expiry = 30 days
version = 2.1.0
archive_dir = /etc/letsencrypt/archive/gpunode-gateway
cert = /etc/letsencrypt/live/gpunode-gateway/cert.pem
privkey = /etc/letsencrypt/live/gpunode-gateway/privkey.pem
chain = /etc/letsencrypt/live/gpunode-gateway/chain.pem
fullchain = /etc/letsencrypt/live/gpunode-gateway/fullchain.pem

# Options used in the renewal process
[renewalparams]
account = d016d2cda5f1adfd7de024ca26a1cd6d
renew_hook = /etc/gpunode/gateway/renewed.sh
server = https://one.test/directory
authenticator = webroot
webroot_path = /var/lib/gpunode/gateway/acme,
key_type = ecdsa
[[webroot_map]]
a.test = /var/lib/gpunode/gateway/acme
b.test = /var/lib/gpunode/gateway/acme
"""
NAMES = {"a.test", "b.test"}


@pytest.mark.parametrize(
    "certificate", [ASKED, replace(ASKED, names=["b.test", "a.test"]), replace(ASKED, webroot=f"{ASKED.webroot}/")]
)
def test_what_is_kept_is_not_asked_for(certificate):
    assert tls_certbot.differs(certificate, RENEWAL, NAMES) == []
    assert tls_certbot.differs(certificate, RENEWAL.partition("[[")[0], NAMES) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"names": ["a.test"]}, "it is for a.test, b.test, but should be for a.test"),
        ({"names": ["a.test", "b.test", "c.test"]}, "but should be for a.test, b.test, c.test"),
        (
            {"server": "https://two.test/directory"},
            "it is renewed from the authority https://one.test/directory, but should be from the authority"
            " https://two.test/directory",
        ),
        ({"hook": "/srv/front/renewed.sh"}, "with the hook /etc/gpunode/gateway/renewed.sh"),
        ({"webroot": "/srv/acme"}, "but should be in /srv/acme"),
    ],
)
def test_differences_are_named(changes, expected):
    (message,) = tls_certbot.differs(replace(ASKED, **changes), RENEWAL, NAMES)
    assert expected in message


def test_another_way_of_proving_differs():
    (message,) = tls_certbot.differs(ASKED, RENEWAL.replace("= webroot\n", "= standalone\n"), NAMES)
    assert "by the way of standalone" in message


@pytest.mark.parametrize(("renewal", "names"), [("", NAMES), (RENEWAL, set()), ("", set())])
def test_none_is_there_yet(renewal, names):
    assert tls_certbot.differs(ASKED, renewal, names) == ["certbot has none yet"]


@pytest.fixture
def look(tmp_path, capsys):
    """What gateway_info says of a front that has the certificate that certbot keeps."""
    pair = [str(tmp_path / name) for name in ("certificate.pem", "certificate.key")]
    live = tmp_path / "letsencrypt" / "live" / tls_certbot.LINEAGE
    live.mkdir(parents=True)
    (tmp_path / "letsencrypt" / "renewal").mkdir()
    (tmp_path / "letsencrypt" / "renewal" / f"{tls_certbot.LINEAGE}.conf").write_text(RENEWAL)
    (tmp_path / "note").write_text(ASKED.note)
    subprocess.run(tls_certificate.self_signed(*pair, sorted(NAMES), 90), check=True, capture_output=True)
    (live / "fullchain.pem").write_bytes((tmp_path / "certificate.pem").read_bytes())

    def call(**changes):
        request = {**vars(ASKED), **changes} if changes.get("email") != "" else None
        args = {"certificate": pair[0], "certificate_key": pair[1], "acme_note": str(tmp_path / "note")}
        args |= {"certbot_dir": str(tmp_path / "letsencrypt"), **({"acme": request} if request else {})}
        with patch_module_args(args), pytest.raises(SystemExit):
            gateway_info.main()
        result = json.loads(capsys.readouterr().out)
        return result["acme_differs"], result["acme_account"], result["acme_deploy"], result["acme_kept"]

    return call


def test_a_node_that_has_it_all(look):
    assert look() == ([], False, False, True)


def test_a_changed_email_is_sent_to_the_authority(look):
    assert look(email="other@example.net") == ([], True, False, True)


def test_a_certificate_that_did_not_reach_the_front(look, tmp_path):
    (tmp_path / "certificate.pem").write_text("the one before\n")
    assert look() == ([], False, True, True)


def test_the_names_are_those_of_the_certificate_itself(look):
    ((result,), *_rest) = look(names=["a.test"])
    assert result == "it is for a.test, b.test, but should be for a.test"


def test_one_is_kept_that_nobody_asks_for_any_more(look):
    assert look(email="") == ([], False, False, True)
