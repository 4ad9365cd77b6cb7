# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates from two small authorities, by the distribution's certbot: asked for when something else is wanted, and
only then; and what serves goes on until the new one is there. In this order."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest
from acme import Authority
from conftest import NAME, PORT, site
from cryptography import x509
from scenario import Play, docker, on_node, wait_until

SECOND = "second.gpunode.test"
GATEWAY = "systemctl show -P ActiveEnterTimestampMonotonic,MainPID gpunode-gateway.service"
PAIR = "/etc/gpunode/gateway/certificate.pem /etc/gpunode/gateway/certificate.key"
RENEWAL = "/etc/letsencrypt/renewal/gpunode-gateway.conf"


@pytest.fixture(scope="module")
def authorities(address: str) -> Iterator[list[Authority]]:
    """Two of them on this machine, where the node reaches them. They know where both names lead."""
    here = docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "gpunode-lab-net")
    names = {NAME: (address, 80), SECOND: (address, 80)}
    # The certificate that other tests know is the gateway's again in the end.
    on_node(f"cp -p {PAIR} /root/")
    with Authority("one", names, here) as one, Authority("two", names, here) as two:
        yield [one, two]
    on_node("cp -p /root/certificate.pem /root/certificate.key /etc/gpunode/gateway/")
    result = site()
    assert result.status == 0, result.text[-3000:]


def acme(authority: Authority, *names: str, email: str = "ops@example.net") -> Play:
    return site(gateway_acme_email=email, gateway_acme_url=authority.directory, gateway_names=[NAME, *names])


def served(address: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((address, PORT)).encode())


def names_of(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(found.get_values_for_type(x509.DNSName))


def issuer_of(certificate: x509.Certificate) -> str:
    return str(certificate.issuer.rdns[0].rfc4514_string())


def test_the_first_one_comes_and_is_not_asked_for_twice(authorities: list[Authority], address: str) -> None:
    one, _two = authorities
    result = acme(one)
    assert result.status == 0, result.text[-3000:]
    assert (issuer_of(served(address)), names_of(served(address))) == ("CN=one", [NAME])
    assert [account["contact"] for account in one.accounts] == [["mailto:ops@example.net"]]
    again = acme(one)
    assert (again.status, again.changed) == (0, 0), again.text[-3000:]
    assert one.issued == [[NAME]]


def test_another_name_is_asked_for_and_taken_up_by_a_reload(authorities: list[Authority], address: str) -> None:
    one, _two = authorities
    before = on_node(GATEWAY)
    result = acme(one, SECOND)
    assert result.status == 0, result.text[-3000:]
    assert names_of(served(address)) == sorted([NAME, SECOND])
    assert one.issued[1:] == [sorted([NAME, SECOND])]
    assert on_node(GATEWAY) == before


def test_a_name_that_cannot_be_proved_leaves_the_old_one_in_use(authorities: list[Authority], address: str) -> None:
    one, _two = authorities
    before = served(address)
    result = acme(one, SECOND, "elsewhere.gpunode.test")
    assert result.status != 0
    assert "no address is known for elsewhere.gpunode.test" in result.words
    assert served(address) == before
    again = acme(one, SECOND)
    assert (again.status, again.changed) == (0, 0), again.text[-3000:]
    assert served(address) == before


def test_another_authority_is_asked_and_renews_it(authorities: list[Authority], address: str) -> None:
    one, two = authorities
    result = acme(two, SECOND)
    assert result.status == 0, result.text[-3000:]
    assert issuer_of(served(address)) == "CN=two"
    count, before = len(one.issued), served(address)
    # As certbot's timer does it, when it is time.
    on_node("certbot renew --force-renewal --no-random-sleep-on-renew --quiet")
    assert (len(one.issued), len(two.issued)) == (count, 2)
    # Workers of before answer until they have ended.
    wait_until(lambda: served(address) != before)
    again = acme(two, SECOND)
    assert (again.status, again.changed) == (0, 0), again.text[-3000:]


def test_a_changed_email_is_sent_to_the_authority(authorities: list[Authority]) -> None:
    _one, two = authorities
    issued = len(two.issued)
    result = acme(two, SECOND, email="night@example.net")
    assert result.status == 0, result.text[-3000:]
    assert [account["contact"] for account in two.accounts] == [["mailto:night@example.net"]]
    assert len(two.issued) == issued


def test_a_certificate_that_did_not_reach_the_gateway_is_taken_up(authorities: list[Authority], address: str) -> None:
    """As after a hook that failed, of which certbot says nothing."""
    _one, two = authorities
    wanted = served(address)
    on_node("cp -p /root/certificate.pem /root/certificate.key /etc/gpunode/gateway/; systemctl reload gpunode-gateway")
    # Workers of before answer until they have ended.
    wait_until(lambda: served(address) != wanted)
    result = acme(two, SECOND, email="night@example.net")
    assert result.status == 0, result.text[-3000:]
    assert served(address) == wanted


def test_without_an_address_nothing_is_renewed_any_more(authorities: list[Authority], address: str) -> None:
    assert on_node(f"ls {RENEWAL}") == RENEWAL
    result = site()
    assert result.status == 0, result.text[-3000:]
    assert on_node(f"ls {RENEWAL}", check=False) == ""
    # certbot's is for other names than one that is made here.
    assert issuer_of(served(address)) not in ("CN=one", "CN=two")
    again = site()
    assert (again.status, again.changed) == (0, 0), again.text[-3000:]
