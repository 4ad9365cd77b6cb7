# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quoting: what goes in comes out, and nothing gets out of its line."""

from __future__ import annotations

import csv
import re

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils import quoting
from hypothesis import given, strategies as st

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=40)


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("--port=8000", "--port=8000"),
        ("", '""'),
        ("a b", '"a b"'),
        ("100%", "100%%"),
        ("$HOME", "$$HOME"),
        ("${X}", "$${X}"),
        ('a"b', '"a\\"b"'),
        ("a\\b", '"a\\\\b"'),
        ("a\nb", '"a\\x0ab"'),
        (";", '";"'),
        ("#x", '"#x"'),
        ("it's", '"it\'s"'),
        (8000, "8000"),
    ],
)
def test_unit_arg(value, quoted):
    assert quoting.unit_arg(value) == quoted


def test_nul_is_refused():
    with pytest.raises(ValueError, match="NUL"):
        quoting.unit_arg("a\x00b")


def read_back(word: str) -> str:
    """One argument as systemd.service(5) says that it is read: quotes, escapes, then specifiers and variables."""
    if word.startswith('"'):
        assert word.endswith('"')
        word = re.sub(
            r"\\(?:x([0-9a-f]{2})|(.))", lambda m: chr(int(m[1], 16)) if m[1] else m[2], word[1:-1], flags=re.DOTALL
        )
    else:
        assert not re.search(r"[\s\"'\\]", word)
    assert not re.search(r"(?<!%)(?:%%)*%(?!%)", word)
    return word.replace("%%", "%").replace("$$", "$")


@given(TEXT)
def test_quoted_text_reads_back_unchanged(value):
    quoted = quoting.unit_arg(value)
    assert "\n" not in quoted
    assert "\r" not in quoted
    assert read_back(quoted) == value


@given(TEXT)
def test_free_text_stays_on_its_line(value):
    for text in (quoting.unit_text(value), quoting.comment_text(value)):
        assert len(f"x{text}x".splitlines()) == 1 or not re.search(r"[\n\r]", text)
        assert not text.endswith("\\")
    assert not re.search(r"(?<!%)(?:%%)*%(?!%)", quoting.unit_text(value))


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), TEXT, max_size=4))
def test_env_file_comes_back_or_is_refused(variables):
    if any(re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value) for value in variables.values()):
        with pytest.raises(ValueError, match="control character"):
            quoting.env_file(variables)
        return
    text = quoting.env_file(variables)
    assert (dict(line.split("=", 1) for line in text.split("\n")) if text else {}) == variables


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"B": 1, "A": True, "C": None, "D": False}, "A=1\nB=1\nC=\nD=0"),
        ({"A": " a #b='c' "}, "A= a #b='c' "),
        ({}, ""),
    ],
)
def test_env_file(variables, text):
    assert quoting.env_file(variables) == text


@pytest.mark.parametrize("variables", [{"A B": "1"}, {"1A": "1"}, {"": "1"}, {"A=": "1"}, {"A": "x\ny"}, {"A": "\x00"}])
def test_env_file_refuses(variables):
    with pytest.raises(ValueError, match=r"not the name|control character"):
        quoting.env_file(variables)


def test_a_refused_secret_is_not_repeated():
    with pytest.raises(ValueError, match="VLLM_API_KEY") as caught:
        quoting.env_file({"VLLM_API_KEY": "hush\nhush"})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("path", ["/srv/hub", "/srv/a,b", '/srv/a"b', "/srv/a b", "/srv/a:b"])
def test_bind_mount_is_one_line_of_csv(path):
    (fields,) = csv.reader([quoting.bind_mount(path, "/hub", readonly=True)])
    assert fields == ["type=bind", f"source={path}", "target=/hub", "readonly"]


@pytest.mark.parametrize("path", ["srv", "", "/a\nb"])
def test_bind_mount_refuses(path):
    with pytest.raises(ValueError, match="absolute path"):
        quoting.bind_mount(path, "/hub")


@pytest.mark.parametrize(
    ("paths", "args", "found"),
    [
        (["/a/b", "/a", "/a/b/"], [], "/a/b"),
        (["/a b", '/"', "/100%", "/$x"], [], '"/\\"" /$x /100%% "/a b"'),
        (["relative", "/new\nline", ""], [], ""),
        ([], ["-v", "/v:/x", "-v/w:/x", "--volume=/y:/x:ro", "--volume", "named:/x"], "/v /w /y"),
        ([], ["--mount=type=bind,source=/m,target=/t", "--mount", "type=volume,src=n,dst=/t"], "/m"),
        ([], ["--env-file=/e", "--network=host", "--label=/no"], "/e"),
    ],
)
def test_mounts_for(paths, args, found):
    assert quoting.mounts_for(paths, args) == found


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["/srv/a.pem", "/srv/a.key"], {"srv.mount", "srv-a.key.mount", "srv-a.pem.mount"}),
        (["/", "relative", "/a\nb"], set()),
        # As systemd-escape --path prints them.
        (["/.a b/é-x:_%"], {r"\x2ea\x20b.mount", r"\x2ea\x20b-\xc3\xa9\x2dx:_\x25.mount"}),
    ],
)
def test_mount_units(paths, found):
    assert set(quoting.mount_units(paths).split()) == found
