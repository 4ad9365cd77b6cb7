# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No secret is left in a text, and what is no secret is."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils import _redact
from hypothesis import example, given
from hypothesis import strategies as st

AUTH = base64.b64encode(b"robot:s3cr3t/pass").decode()


@pytest.mark.parametrize(
    ("reader", "text", "found"),
    [
        (_redact.of_environment, "HF_HUB_OFFLINE=1\nVLLM_API_KEY=abc\n", {"abc"}),
        (_redact.of_environment, "# a comment\nWANDB=0123456789abcdef\n", {"0123456789abcdef"}),
        (_redact.of_environment, 'PATH="/usr/bin:/sbin"\nVLLM_HOST_IP=192.168.100.12\nUSE_KEY=true\n', set()),
        (_redact.of_environment, "NO_PROXY=localhost,.example.com\n", set()),
        (_redact.of_urls, "x http://proxy.example.com:3128 y", set()),
        (
            _redact.of_docker_config,
            json.dumps({"auths": {"r": {"auth": AUTH}}}),
            {AUTH, "robot:s3cr3t/pass", "s3cr3t/pass"},
        ),
        (_redact.of_docker_config, json.dumps({"auths": {"r": {"identitytoken": "idt"}}}), {"idt", ":"} - {":"}),
        (_redact.of_docker_config, '{"auths": []}', set()),
        (_redact.of_docker_config, "no json", set()),
        (_redact.of_list, "api-key:\n- one\n- 'two'\n", {"one", "two"}),
        (
            _redact.of_front,
            'map $a $b {\n  default "";\n  "Bearer k1" "ada";\n}\n  default "Bearer k2";\n',
            {"k1", "k2"},
        ),
        (_redact.of_environment, "[docker]\nbaseurl=https://d/x\npassword=sesame\n", {"sesame"}),
        (_redact.of_apt, "machine x login y password z\n", {"z"}),
        (_redact.of_token, "hf_abc\n", {"hf_abc"}),
        (_redact.of_token, "\n", set()),
    ],
)
def test_where_secrets_lie(reader, text, found) -> None:
    assert reader(text) == found


def test_a_proxys_password_in_the_spellings_of_programs() -> None:
    found = _redact.of_environment("HTTPS_PROXY=http://ada:p%40ss@proxy:3128\n")
    assert {"p%40ss", "p@ss", base64.b64encode(b"ada:p@ss").decode()} <= found


@given(
    st.text(min_size=1, max_size=40).filter(
        lambda text: text.strip() and not any(c in text for c in "\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
    )
)
@example("a")
@example("p@ss/wo rd")
@example("%h$x'\"\\")
def test_a_known_secret_is_gone_in_every_spelling(secret: str) -> None:
    secret = secret.strip()
    clean = _redact.Redactor([secret]).clean
    for written in (secret, quote(secret, safe=""), json.dumps(secret), base64.b64encode(secret.encode()).decode()):
        inner = written[1:-1] if written.startswith('"') and written.endswith('"') and len(written) > 2 else written
        # Between what no word is part of: a short one is blotted out as a word alone.
        told = clean(f"<{inner}>")
        assert told == f"<{_redact.BLOT}>" or inner not in told.replace(_redact.BLOT, "")


def test_a_short_secret_leaves_words_alone() -> None:
    assert _redact.Redactor(["key"]).clean("monkeys: key") == f"monkeys: {_redact.BLOT}"


@pytest.mark.parametrize(
    "secret",
    [
        "hf_AbCdEfGhIjKlMnOpQrSt",
        "Authorization: Bearer abcdefgh1234",
        'authorization":"Basic dXNlcjpwYXNz',
        "https://ada:word@mirror.example.com/x",
        "https://glpat-1234567@git.example.com/x",
        "--api-key sesame",
        "HF_TOKEN=sesame",
        "password: sesame",
        "-----BEGIN PRIVATE KEY-----\nsesame\n-----END PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_secret_is_gone(secret: str) -> None:
    told = _redact.Redactor([]).clean(f"before\n{secret}\nafter")
    for word in ("AbCd", "abcdefgh1234", "dXNl", "ada", "word@", "glpat", "sesame"):
        assert word not in told
    assert told.startswith("before\n")
    assert told.endswith("\nafter")


@pytest.mark.parametrize(
    "text",
    [
        "Available KV cache memory: 1.00 GiB",
        "GPU KV cache size: 1024 tokens, Maximum concurrency for 1024 tokens per request: 1.00x",
        "tool-call-parser: llama3_json",
        "max_num_batched_tokens: 8192",
        "/etc/huggingface/token:\nnext line",
        "http://127.0.0.1:8000/v1",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert _redact.Redactor(["sesame"]).clean(text) == text


def test_names_stay_where_values_go() -> None:
    assert _redact.blanked("# why\nA=1\nB=\n") == f"# why\nA={_redact.BLANK}\nB={_redact.BLANK}\n"
    assert _redact.blanked_list("api-key:\n- one\n- two\n") == f"api-key:\n- {_redact.BLANK}\n- {_redact.BLANK}\n"


def test_the_end_of_a_long_text_is_what_matters() -> None:
    assert _redact.tail("one\ntwo\nthree\n", 100) == "one\ntwo\nthree\n"
    assert _redact.tail("one\ntwo\nthree\n", 8) == "(the beginning is left out)\nthree\n"
