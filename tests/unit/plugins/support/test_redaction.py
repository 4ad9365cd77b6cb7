# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No secret is left in a text, and what is no secret is."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.support import redact
from hypothesis import example, given, settings, strategies as st

AUTH = base64.b64encode(b"robot:s3cr3t/pass").decode()


@pytest.mark.parametrize(
    ("reader", "text", "found"),
    [
        (redact.of_environment, "HF_HUB_OFFLINE=1\nVLLM_API_KEY=abc\n", {"abc"}),
        (redact.of_environment, "# a comment\nWANDB=0123456789abcdef\n", {"0123456789abcdef"}),
        (redact.of_environment, 'PATH="/usr/bin:/sbin"\nVLLM_HOST_IP=192.168.100.12\nUSE_KEY=true\n', set()),
        (redact.of_environment, "NO_PROXY=localhost,.example.com\n", set()),
        (redact.of_urls, "x http://proxy.example.com:3128 y", set()),
        (
            redact.of_docker_config,
            json.dumps({"auths": {"r": {"auth": AUTH}}}),
            {AUTH, "robot:s3cr3t/pass", "s3cr3t/pass"},
        ),
        (redact.of_docker_config, json.dumps({"auths": {"r": {"identitytoken": "idt"}}}), {"idt", ":"} - {":"}),
        (redact.of_docker_config, '{"auths": []}', set()),
        (redact.of_docker_config, "no json", set()),
        (redact.of_list, "api-key:\n- one\n- 'two'\n", {"one", "two"}),
        (
            redact.of_front,
            'map $a $b {\n  default "";\n  "Bearer k1" "ada";\n}\n  default "Bearer k2";\n',
            {"k1", "k2"},
        ),
        (redact.of_environment, "[docker]\nbaseurl=https://d/x\npassword=sesame\n", {"sesame"}),
        (redact.of_apt, "machine x login y password z\n", {"z"}),
        (redact.of_token, "hf_abc\n", {"hf_abc"}),
        (redact.of_token, "\n", set()),
    ],
)
def test_where_secrets_lie(reader, text, found) -> None:
    assert reader(text) == found


def test_a_proxys_password_in_the_spellings_of_programs() -> None:
    found = redact.of_environment("HTTPS_PROXY=http://ada:p%40ss@proxy:3128\n")
    assert {"p%40ss", "p@ss", base64.b64encode(b"ada:p@ss").decode()} <= found


@settings(deadline=None)
@given(
    st.text(min_size=1, max_size=40).filter(
        lambda text: text.strip() and not any(c in text for c in "\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
    )
)
@example("a")
@example("p@ss/wo rd")
@example('"0"')
@example("%h$x'\"\\")
def test_a_known_secret_is_gone_in_every_spelling(secret: str) -> None:
    secret = secret.strip()
    clean = redact.Redactor([secret]).clean
    encoded = base64.b64encode(secret.encode()).decode()
    # Of JSON what is between its quotation marks; marks of the secret's own belong to it.
    for inner in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], encoded):
        # Between what no word is part of: a short one is blotted out as a word alone.
        page = clean(f"<{inner}>")
        assert page == f"<{redact.BLOT}>" or inner not in page.replace(redact.BLOT, "")


def test_a_short_secret_leaves_words_alone() -> None:
    assert redact.Redactor(["key"]).clean("monkeys: key") == f"monkeys: {redact.BLOT}"


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
        "AWS_SECRET_ACCESS_KEY=sesame",
        "AWS_SECRET_ACCESS_KEY=/sesame/abc",
        "AZURE_STORAGE_KEY=sesame==",
        "LDAP_PW=sesame",
        "SLACK_WEBHOOK_URL=https://hooks.example/sesame",
        "password_size: sesame",
        "LDAP_PW=sesame and more sesame",
        "ldapPw: sesame",
        "access_key: sesame",
        "secretAccessKey: 'sesame'",
        "dbPasswd = sesame",
        "MYSQL_PWD=sesame",
        "client-credential: sesame",
        "REGISTRY_AUTH=sesame",
        "apikey=sesame",
        "LDAP_PW=!sesame",
        "password: &sesame",
        "password: first line\n  sesame",
        "- name: x\n  password: >-\n    sesame\n    sesame\n",
        "- keys:\n  - sesame\n  - sesame",
        'LDAP_PW="sesame',
        "- password: sesame with spaces",
        "storage:\n  access_key: |\n    sesame\n\n    sesame\n  region: x",
        "api_keys:\n- sesame\n- sesame",
        "secrets:\n  one:\n    two: sesame",
        '{"a": {"secret_key": "sesame", "b": 1}}',
        '{"api_key": ["sesame", "sesame"], "b": 1}',
        '{"msg": "{\\"token\\": \\"sesame\\"}"}',
        '  "keys": [\n    "sesame",\n    "sesame"\n  ]',
        "<password>sesame</password>",
        "12:00:01 vllm[1]: args: {'api_key': ['sesame'], 'x': 1}",
        "12:00:01 vllm[1]: error: token=sesame refused",
        "12:00:01 vllm[1]: X-Api-Key: sesame",
        "12:00:01 vllm[1]: Authorization: Bearer sesame",
        "https://b.example/x?sig=sesame&X-Amz-Signature=sesame",
        "docker login --registry-password sesame",
        "postgres://app:ses/ame@db".replace("/", "%2F"),
        "postgres://app:sesame@more@db/x",
        "machine m login bob password sesame",
        "Environment=ODD=sesame",
        "Environment=ODD=sesame EVEN=sesame",
        "Environment=\"ODD=sesame sesame\" 'EVEN=sesame sesame'",
        'Environment="ODD=say \\"sesame\\" sesame"',
        "Environment=A=b \\\n  ODD=sesame",
        "ExecStart=docker run --env=ODD=sesame x",
        "ExecStart=docker run --env ODD=sesame x",
        "ExecStart=docker run -e ODD=sesame x",
        "ExecStart=docker run -eODD=sesame x",
        "ExecStart=docker run '--env=ODD=a sesame' x",
        'ExecStart=docker run --env="ODD=a sesame" x',
        'ExecStart=docker run "--env=ODD=a sesame" x',
        'ExecStart=docker run -e "ODD=a sesame" x',
        '"Env": [\n  "PATH=/usr/bin",\n  "ODD=sesame"\n]',
        '"Env":["ODD=sesame","EVEN=sesame"]',
        '"Env": ["ODD=a]b sesame", "EVEN=sesame"]',
        "ExecStart=docker run x --api-key sesame sesame",
        'ExecStart=docker run x --api-key "sesame" "sesame"',
        "ExecStart=vllm serve \\\n  --api-key \\\n  sesame \\\n  --port 80",
        '"Args": [\n  "--api-key",\n  "sesame",\n  "sesame",\n  "--port",\n  "80"\n]',
        "['vllm', '--api-key', 'sesame', '--port', '80']",
        '{\\"Cmd\\":[\\"--api-key\\",\\"sesame\\"]}',
        "command:\n  - --api-key\n  - sesame\n  - --port\n",
        '["docker", "run", "-e", "ODD=sesame", "x"]',
        "'docker' 'run' '-e' 'ODD=sesame' 'x'",
        "ExecStart=/usr/bin/env -i ODD=sesame EVEN='sesame sesame' x",
        "DefaultEnvironment=ODD=sesame",
        "systemd-run -E ODD=sesame --setenv=EVEN=sesame x",
        '{"name":"HF_TOKEN","value":"sesame"}',
        "- name: HF_TOKEN\n  value: sesame",
        "curl -u bob:sesame https://x.example",
        "docker login -u bob -p sesame registry.example",
        "sshpass -p sesame ssh x",
        "door_passcode=sesame",
        "https://hooks.slack.com/services/T0/B0/sesame",
        "dckr_pat_sesamesesamesesame",
        "github_pat_sesamesesamesesame_sesame",
    ],
)
def test_text_that_looks_like_a_secret_is_blotted_out(secret: str) -> None:
    text = redact.Redactor([]).clean(f"before\n{secret}\nafter")
    for word in ("AbCd", "abcdefgh1234", "dXNl", "ada", "word@", "glpat", "sesame"):
        assert word not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter")


@pytest.mark.parametrize(
    "text",
    [
        "Available KV cache memory: 1.00 GiB",
        "GPU KV cache size: 1024 tokens, Maximum concurrency for 1024 tokens per request: 1.00x",
        "tool-call-parser: llama3_json",
        "max_num_batched_tokens: 8192",
        "/etc/huggingface/token:\nnext line",
        "http://127.0.0.1:8000/v1",
        "max-num-batched-tokens: 32K",
        "eos_token_id: 128001",
        "tokenizer: meta-llama/Llama-3.1-8B",
        "KeyringMode=inherit",
        "HF_TOKEN_PATH=/etc/huggingface/token",
        "# key: https://download.docker.com/linux/debian/gpg",
        "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-docker-ce",
        "PWD=/root",
        "PWD=/",
        "Environment=HF_HUB_OFFLINE=1 HF_HOME=/var/lib/huggingface",
        "Environment=HTTPS_PROXY=http://proxy.example.com:3128 NO_PROXY=.example.com",
        "ExecStart=docker run --env=HOME=/home/vllm --env=USER=vllm --env-file=/etc/vllm/8b.env x",
        "ExecStart=docker run -e NCCL_DEBUG=INFO -e CUDA_VISIBLE_DEVICES=0,1 x",
        '"Env": ["PATH=/usr/bin", "LANG=C.UTF-8"]',
        "12:00:01 vllm[1]: /etc/huggingface/token: no such file",
        "12:00:01 vllm[1]: the API key is not the one of the env file",
        "enable-auto-tool-choice: true",
        "auth: none",
        "12:00:01 vllm[1]: KeyError: 'hermes'",
        "num_key_value_heads: 8",
        "ExecStart=docker run --user 1000:1000 --name x",
        "ExecStart=vllm serve --tokenizer some/name other",
        "name: 8b\nvalue: 3",
        "curl -u bob https://x.example/y:z",
        "docker_apt_key_url: https://download.docker.com/linux/debian/gpg",
        "docker_apt_key_fingerprint: 9DC8 5822",
        "Keys=/etc/vllm/8b.keys.yaml",
        "gateway_certificate_key: /etc/ssl/private/node.pem",
        "  ssl_certificate_key /etc/ssl/private/node.pem;",
    ],
)
def test_text_without_secrets_is_kept(text: str) -> None:
    assert redact.Redactor(["sesame"]).clean(text) == text


def test_text_around_a_secret_is_kept() -> None:
    text = "a:\n  access_key: |\n    one\n    two\n  region: here\nlist:\n- password: x y\n  user: ada\n"
    clean = redact.Redactor([]).clean(text)
    assert [line for line in clean.splitlines() if redact.BLOT not in line] == [
        "a:",
        "  access_key: |",
        "  region: here",
        "list:",
        "  user: ada",
    ]
    result = json.loads(redact.Redactor([]).clean(json.dumps({"token": "x", "keys": "y z", "n": [1], "model": "m"})))
    assert result == {"token": redact.BLOT, "keys": redact.BLOT, "n": [1], "model": "m"}
    unit = 'Environment=HOME=/h ODD=x "EVEN=y z" LANG=C'
    assert redact.Redactor([]).clean(unit) == (f'Environment=HOME=/h ODD={redact.BLOT} "EVEN={redact.BLOT}" LANG=C')


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Environment=ODD=hunter2 FLAG=1 LANG=C.UTF-8", {"hunter2"}),
        ("Environment=LDAP_PW=12345678 N=12345678", {"12345678"}),
        ("ExecStart=x '--env=A=two words' -e B=three --env=HOME=/home/x", {"two words", "three"}),
        ("Environment=A=/srv/path B=https://x.example", set()),
        ('ExecStart=x "--env=A=50%% of $$x"', {"50%% of $$x", "50% of $x"}),
    ],
)
def test_every_value_of_a_units_environment_is_known(text: str, found: set[str]) -> None:
    assert redact.of_unit(text) == found


def test_a_long_text_takes_no_long_time() -> None:
    """Half a journal of base64, of names without values, and of quotes that never end."""
    texts = ["A", "token ", "token: ", "'", "a=", "\n", "key: [", "key:\n", "http://", "-----BEGIN PRIVATE KEY-----"]
    for text in [piece * (200_000 // len(piece)) for piece in texts]:
        begin = time.process_time()
        redact.Redactor(["sesame"]).clean(text)
        assert time.process_time() - begin < 20


def test_names_stay_where_values_go() -> None:
    assert redact.blanked("1ST=x\n a.b-c = y=z\n") == f"1ST={redact.BLANK}\n a.b-c ={redact.BLANK}\n"
    assert redact.blanked("# why\nA=1\nB=\n") == f"# why\nA={redact.BLANK}\nB={redact.BLANK}\n"
    assert redact.blanked_list("api-key:\n- one\n- two\n") == f"api-key:\n- {redact.BLANK}\n- {redact.BLANK}\n"


@pytest.mark.parametrize(
    ("blank", "text"),
    [
        (redact.blanked, '# why\nA="one\nsesame"\n\nB=2'),
        (redact.blanked, "A=one\\\nsesame"),
        (redact.blanked, "A=1\n#WANDB=sesame"),
        (redact.blanked, "A=1\nsesame"),
        (redact.blanked, "A=1\nODD sesame"),
        (redact.blanked_list, "api-key: [sesame]"),
        (redact.blanked_list, '- "one\n  sesame"'),
        (redact.blanked_list, "- |\n  sesame"),
    ],
)
def test_no_line_of_a_value_stays(blank, text: str) -> None:
    page = blank(text)
    assert "sesame" not in page
    assert len(page.split("\n")) == len(text.split("\n"))


def test_the_end_of_a_long_text_is_what_matters() -> None:
    assert redact.tail("one\ntwo\nthree\n", 100) == "one\ntwo\nthree\n"
    assert redact.tail("one\ntwo\nthree\n", 8) == "(the beginning was removed)\nthree\n"
