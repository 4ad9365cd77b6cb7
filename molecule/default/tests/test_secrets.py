# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Hugging Face token is in its file and nowhere else."""

from __future__ import annotations

TOKEN = "hf_lab_good"
PATTERN = "hf_lab_goo[d]"  # finds the token, and not itself in the journal that sudo writes of these very commands
FILE = "/etc/huggingface/token"


def test_token_file_is_for_root_alone(host) -> None:
    token = host.file(FILE)
    assert token.content_string.strip() == TOKEN
    assert (token.mode, token.user) == (0o600, "root")


def test_token_is_in_no_other_file(host) -> None:
    places = "/etc /var/lib /var/log /opt /run /home /root"
    # Images, and what the test of the journal reads.
    elsewhere = "--exclude-dir=docker --exclude-dir=containerd --exclude-dir=journal"
    found = host.run(f"grep -rls {elsewhere} '{PATTERN}' {places}")
    assert found.stdout.split() == [FILE]


def test_token_is_in_no_process(host) -> None:
    result = host.run(
        "for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/cmdline; tr '\\0' '\\n' <$p/environ; done 2>/dev/null"
    )
    # Something was read at all, and the token is not in it.
    assert "systemd" in result.stdout
    assert TOKEN not in result.stdout


def test_token_is_in_no_journal(host) -> None:
    journal = host.run("journalctl --no-pager -o cat").stdout
    assert "vllm" in journal
    assert TOKEN not in journal


def test_token_is_in_no_output_at_vvv(host, play) -> None:
    """Writing the token again, with everything told that ansible can tell."""
    host.run(f"rm {FILE}")
    result = play("-e", "model=tiny", "-vvv")
    assert result.status == 0, result.text[-3000:]
    assert result.changed >= 1
    assert host.file(FILE).content_string.strip() == TOKEN
    assert TOKEN not in result.text
