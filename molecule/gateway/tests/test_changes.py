# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changes while requests are in flight, what is refused, and what is left of it all. In this order."""

from __future__ import annotations

import threading

from conftest import COMPLETION, KEYS, PORT, SETTINGS, Gateway, Held, site
from scenario import on_node, run_play, wait_until

ENGINE = "systemctl show -P ActiveEnterTimestampMonotonic,MainPID vllm-tiny.service"
GATEWAY = "systemctl show -P ActiveEnterTimestampMonotonic,MainPID gpunode-gateway.service"
IMAGE = "registry.gpunode.test:5000/vllm/vllm-openai-cpu:v0.32.0"
NEW = {"ada": "sk-ada-0123456789-0123456789", "alan": "sk-alan-~._+/0123456789="}
EVERY_KEY = [*KEYS.values(), *NEW.values(), *SETTINGS["vllm_api_keys"]]


class Clients:
    """Streams one after the other, each over a connection of its own, until told to end."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        self.gateway, self.key, self.lost, self.whole, self.ended = gateway, key, [], 0, threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.ended.wait(0.2):
            answer = self.gateway.ask(
                "/v1/completions", "POST", self.key, {**COMPLETION, "max_tokens": 60, "stream": True}
            )
            if answer.status == 200 and answer.body.rstrip().endswith(b"data: [DONE]"):
                self.whole += 1
            else:
                self.lost.append(answer)

    def end(self) -> None:
        self.ended.set()
        self.thread.join()


def test_keys_change_and_no_request_is_lost(gateway: Gateway) -> None:
    before = on_node(ENGINE), on_node(GATEWAY)
    held = Held(gateway, KEYS["ada"], stream=True)
    clients = Clients(gateway, KEYS["grace"])
    try:
        result = site("-vvv", "--diff", gateway_keys={**NEW, "grace": KEYS["grace"]})
    finally:
        clients.end()
    assert result.status == 0, result.text[-3000:]
    assert (on_node(ENGINE), on_node(GATEWAY)) == before
    # In flight since before the change, with a key that is no more.
    answer = held.finish()
    assert (answer.status, answer.body.rstrip()[-12:]) == (200, b"data: [DONE]"), answer
    assert clients.lost == []
    assert clients.whole > 3
    assert gateway.ask("/v1/models", key=KEYS["ada"]).status == 401
    assert [gateway.ask("/v1/models", key=key).status for key in NEW.values()] == [200, 200]
    assert not [key for key in EVERY_KEY if key in result.text]


def runs() -> str:
    """The image of the engine that clients are to reach; alone, once nothing stands in for it any more."""

    def alone() -> bool:
        return on_node("docker ps --format '{{.Names}}'") == "vllm-tiny"

    wait_until(alone, 120)
    return on_node("docker inspect -f '{{.Config.Image}}' vllm-tiny")


def left_of_the_second() -> str:
    """What is left of the one that ran beside: its unit, what systemd knows of it, its files with their secrets."""
    files = "ls -d /run/vllm-tiny-beside /run/gpunode/beside/* /run/systemd/system/vllm-*"
    return on_node(f"systemctl list-units --all --plain --no-legend 'vllm-*-beside*'; {files} 2>/dev/null", check=False)


def test_an_upgrade_beside_what_serves_loses_no_request(gateway: Gateway) -> None:
    """There and back: the new engine answers first, and stands in while the one under the old name restarts."""
    on_node(f"printf 'FROM {IMAGE}\\nLABEL release=next\\n' | docker build -q -t gpunode.test/vllm:next -")
    before = on_node(ENGINE)
    clients = Clients(gateway, KEYS["grace"])
    try:
        for image in ("gpunode.test/vllm:next", IMAGE):
            result = site(vllm_image=image)
            assert result.status == 0, result.text[-3000:]
            assert "vllm-tiny-beside" in on_node("journalctl --no-pager -o cat -u vllm-tiny-beside -n 1 -o short")
            assert runs() == image
    finally:
        clients.end()
    assert on_node(ENGINE) != before
    assert clients.lost == []
    assert clients.whole > 5
    assert left_of_the_second() == ""


def test_an_upgrade_that_fails_beside_touches_nothing(gateway: Gateway) -> None:
    dies = 'ENTRYPOINT ["sh", "-c", "echo no luck today >&2; exit 1"]'
    on_node(f"printf 'FROM {IMAGE}\\n%s\\n' '{dies}' | docker build -q -t gpunode.test/vllm:dies -")
    before = on_node(ENGINE)
    clients = Clients(gateway, KEYS["grace"])
    try:
        result = site(vllm_image="gpunode.test/vllm:dies")
    finally:
        clients.end()
    assert result.status != 0
    assert "no luck today" in result.words
    assert on_node(ENGINE) == before
    assert runs() == IMAGE
    assert left_of_the_second() == ""
    assert clients.lost == []
    # The first keys, and the image that never left.
    again = site()
    assert (again.status, again.changed) == (0, 0), again.text[-3000:]


def test_an_update_of_nginx_loses_no_request(gateway: Gateway) -> None:
    """As dpkg does it: another file takes the name. The unit's own watch does the rest."""
    key = KEYS["grace"]
    old = on_node("cat /run/gpunode-gateway/nginx.pid")
    held, clients = Held(gateway, key, stream=True), Clients(gateway, key)
    try:
        on_node("cp -p /usr/sbin/nginx /usr/sbin/nginx.new && mv /usr/sbin/nginx.new /usr/sbin/nginx")

        def the_new_one_serves() -> bool:
            process = on_node(
                "p=$(cat /run/gpunode-gateway/nginx.pid) && echo $p && readlink /proc/$p/exe", check=False
            )
            return process.split("\n")[0] != old and process.endswith("\n/usr/sbin/nginx")

        wait_until(the_new_one_serves)
    finally:
        clients.end()
    answer = held.finish()
    assert (answer.status, answer.body.rstrip()[-12:]) == (200, b"data: [DONE]"), answer
    assert clients.lost == []

    def the_unit_follows_it() -> bool:
        """systemd takes the new main process over when its reload has ended, a moment later."""
        unit = on_node("systemctl show -P MainPID,ActiveState gpunode-gateway.service")
        return unit.split() == [on_node("cat /run/gpunode-gateway/nginx.pid"), "active"]

    wait_until(the_unit_follows_it)
    assert gateway.ask("/v1/models", key=key).status == 200


def test_keys_are_in_their_file_and_nowhere_else() -> None:
    assert on_node("stat -c '%a %U' /etc/gpunode/gateway/keys.conf /etc/gpunode/gateway/certificate.key") == (
        "600 root\n600 root"
    )
    # Written so that it finds the keys, and not itself in what sudo writes of it.
    pattern = "sk-[a]da\\|sk-[g]race\\|sk-[a]lan"
    files = on_node(
        f"grep -rls '{pattern}' /etc /run /var/lib/gpunode /var/log /tmp --exclude-dir=journal", check=False
    )
    assert sorted(set(files.split())) == [
        "/etc/gpunode/gateway/keys.conf",
        "/run/gpunode-gateway/started-from/etc/gpunode/gateway/keys.conf",
    ]
    assert on_node("stat -c %a /run/gpunode-gateway/started-from") == "700"
    journal = on_node("journalctl --no-pager -o cat -u gpunode-gateway")
    assert " ada POST /v1/completions 200 " in journal
    assert on_node(f"journalctl --no-pager -o cat | grep -c '{pattern}'", check=False) == "0"
    processes = on_node("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert "nginx: master process" in processes
    assert not [key for key in (*KEYS.values(), *NEW.values()) if key in processes]


def test_a_site_of_somebody_else_s_stays(gateway: Gateway) -> None:
    """The role brought nginx, and not its page; who uses it later finds it as the distribution has it."""
    assert on_node("systemctl is-enabled nginx; systemctl is-active nginx", check=False) == "disabled\ninactive"
    assert on_node("curl -s http://127.0.0.1/ && echo answers", check=False) == ""
    text = "server { listen 127.0.0.1:8081; return 200 own-site; }"
    on_node(f"echo '{text}' >/etc/nginx/conf.d/own.conf && systemctl enable --now nginx")
    before = on_node("systemctl show -P MainPID nginx.service")
    result = site()
    assert result.status == 0, result.text[-3000:]
    assert on_node("systemctl show -P MainPID nginx.service; systemctl is-enabled nginx") == f"{before}\nenabled"
    assert on_node("curl -s http://127.0.0.1:8081/") == "own-site"
    assert result.changed == 0
    assert gateway.ask("/v1/models", key=KEYS["ada"]).status == 200


def test_an_impossible_setting_is_refused_before_anything_changes() -> None:
    result = site(
        gateway_keys={"ada": "short"},
        gateway_port=8081,
        gateway_host="127.0.0.1",
        gateway_certificate="/srv/none.pem",
        gateway_certificate_key="/srv/none.key",
    )
    assert result.status != 0
    assert result.changed == 0
    assert "3 problems found; nothing was changed" in result.words
    assert "Key 1 of gateway_keys must be a text of 20 to 256 letters" in result.words
    assert "The gateway cannot listen on 127.0.0.1:8081: the port is in use, or" in result.words
    assert "There is no file /srv/none.pem; the gateway needs a certificate" in result.words
    assert "short" not in result.text.replace("TASK", "")


def test_a_certificate_of_one_s_own_is_taken_up_by_a_reload(address: str) -> None:
    on_node(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=own -addext subjectAltName=DNS:llm.gpunode.test"
        " -keyout /srv/own.key -out /srv/own.pem 2>/dev/null"
    )
    before = on_node(GATEWAY)
    result = site(gateway_certificate="/srv/own.pem", gateway_certificate_key="/srv/own.key")
    assert result.status == 0, result.text[-3000:]
    assert on_node(GATEWAY) == before
    assert Gateway(address, on_node("cat /srv/own.pem")).ask("/v1/models", key=KEYS["ada"]).status == 200


def test_the_gateway_outlives_a_mount_and_comes_after_it(address: str) -> None:
    """The certificate lies on a mount of its own, which is taken away while the gateway runs."""
    on_node(
        "mkdir -p /mnt/tls /opt/tls && cp /srv/own.* /opt/tls && mount --bind /opt/tls /mnt/tls"
        " && systemctl is-active mnt-tls.mount"
    )
    before = on_node(GATEWAY)
    try:
        result = site(gateway_certificate="/mnt/tls/own.pem", gateway_certificate_key="/mnt/tls/own.key")
        assert result.status == 0, result.text[-3000:]
        shown = on_node("systemctl show --property=Wants,After gpunode-gateway").splitlines()
        assert all("mnt-tls.mount" in line for line in shown)
        on_node("systemctl stop mnt-tls.mount && ! mountpoint -q /mnt/tls")
        assert on_node(GATEWAY) == before
        assert Gateway(address, on_node("cat /srv/own.pem")).ask("/v1/models", key=KEYS["ada"]).status == 200
    finally:
        back = site(gateway_certificate="/srv/own.pem", gateway_certificate_key="/srv/own.key")
    assert back.status == 0, back.text[-3000:]


def test_off_it_is_no_task_on_the_node() -> None:
    result = site(gateway_enabled=False)
    assert result.status == 0, result.text[-3000:]
    assert result.changed == 0
    assert "gpunode.llm.gateway :" not in result.text
    # It goes on as it was; its end is the teardown's.
    assert on_node("systemctl is-active gpunode-gateway") == "active"


def test_the_teardown_takes_it_and_leaves_what_is_not_ours() -> None:
    result = run_play("playbooks/teardown.yml")
    assert result.status == 0, result.text[-3000:]
    assert on_node(f"ss -Hltn 'sport = :{PORT}'") == ""
    assert on_node("ls -d /etc/gpunode/gateway /etc/systemd/system/gpunode-gateway.service", check=False) == ""
    assert on_node("curl -s http://127.0.0.1:8081/") == "own-site"
    again = run_play("playbooks/teardown.yml")
    assert (again.status, again.changed) == (0, 0)
