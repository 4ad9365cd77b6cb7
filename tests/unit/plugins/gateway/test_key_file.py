# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys that playbooks/key.yml makes, lists and revokes: shown once, on the screen, and kept as digests."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.plugin_utils.gateway import key_file, keys

CHECKOUT = Path(__file__).resolve().parents[4]


@pytest.fixture
def play(tmp_path):
    """Run key.yml as a user does, as loudly as can be, with Ansible's log."""

    def run(**settings):
        words = [word for name, value in settings.items() for word in ("-e", f"{name}={value}")]
        line = [sys.executable, "-m", "ansible.cli.playbook", str(CHECKOUT / "playbooks/key.yml"), "-vvv", *words]
        env = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_LOG_PATH": str(tmp_path / "log")}
        done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    return run


def test_a_key_is_shown_once_and_kept_as_a_digest(play, tmp_path):
    status, said = play(make="ada", key_models="8b,70b", key_expires="2027-01-31", key_tokens_per_day="1000")
    assert status == 0, said
    (key,) = re.findall(r"sk-[0-9a-f]{48}", said)
    file = tmp_path / "gateway-keys.yml"
    assert file.stat().st_mode & 0o777 == 0o600
    held = yaml.safe_load(file.read_text())["gateway_keys"]
    own = {"models": ["8b", "70b"], "expires": "2027-01-31", "tokens_per_day": 1000}
    assert held == {"ada": {"sha256": hashlib.sha256(key.encode()).hexdigest(), **own}}
    assert keys.findings(held) == []
    assert key not in (tmp_path / "log").read_text()
    status, listed = play()
    assert status == 0
    assert re.search(r"ada +8b, 70b +1,000 +2027-01-31", listed)
    assert "sk-" not in listed
    assert held["ada"]["sha256"] not in listed
    status, refused = play(make="ada")
    assert status != 0
    assert "ada has a key already." in refused
    status, said = play(revoke="ada")
    assert status == 0
    assert yaml.safe_load(file.read_text()) == {"gateway_keys": {}}


def test_what_cannot_be_is_a_sentence():
    with pytest.raises(ValueError, match="expires must be a day such as 2027-01-31."):
        key_file.made({}, "ada", {"expires": "soon"})
    with pytest.raises(ValueError, match="eve has no key here. There is ada, grace."):
        key_file.revoked({"grace": "x", "ada": {}}, "eve")
    for text in ("$ANSIBLE_VAULT;1.1;AES256\n3132", "gateway_keys: {}\nmodel: 8b", "gateway_keys: [1]", "a: [", "- 1"):
        with pytest.raises(ValueError, match="k.yml holds more than gateway_keys, or is encrypted"):
            key_file.read(text, "k.yml")


def test_a_file_that_others_wrote_is_read():
    text = "gateway_keys:\n  ada: sk-plain\n  ci: {key: sk-x, expires: 2020-01-31, note: old}\n"
    held = key_file.read(text, "k.yml")
    rows = key_file.rows(held, "2027-01-01")
    assert rows[1].split() == ["ada", "all"]
    assert "2020-01-31 (past)" in rows[2]
    assert "sk-" not in "".join(rows)
    assert yaml.safe_load(key_file.text_of(held))["gateway_keys"]["ci"]["expires"] == "2020-01-31"
    assert key_file.read("", "k.yml") == key_file.read("gateway_keys:\n", "k.yml") == {}
    assert key_file.rows({}, "") == ["There is no key yet: -e make=NAME makes one."]
