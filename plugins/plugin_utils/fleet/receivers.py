# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is told of alerts: Alertmanager's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..values import typed

#: What a message in Slack says: a template of Alertmanager.
SLACK = "{{ range .Alerts }}{{ .Annotations.summary }}\n{{ end }}"


def receivers(given: Mapping[str, Any]) -> dict[str, Any]:
    """Alertmanager's configuration with its secrets, and without any ``findings``, and the ways that are ``told``."""
    ways = {"mail": given["mail_to"], "webhook": given["webhook_url"], "Slack": given["slack_url"]}
    told = [way for way, value in ways.items() if value]
    return {"config": _config(given), "findings": _findings(given), "told": told}


def _config(given: Mapping[str, Any]) -> dict[str, Any]:
    kinds: dict[str, list[dict[str, Any]]] = {}
    if given["webhook_url"]:
        kinds["webhook_configs"] = [{"url": given["webhook_url"], "send_resolved": True}]
    if given["slack_url"]:
        slack = {"api_url": given["slack_url"], "send_resolved": True, "text": SLACK}
        kinds["slack_configs"] = [{**slack, **({"channel": given["slack_channel"]} if given["slack_channel"] else {})}]
    if given["mail_to"]:
        who = (
            {"auth_username": given["mail_user"], "auth_password": given["mail_password"]} if given["mail_user"] else {}
        )
        addresses = {"to": ", ".join(typed("monitoring_mail_to", given["mail_to"])), "from": given["mail_from"]}
        kinds["email_configs"] = [{**addresses, "smarthost": given["mail_host"], "send_resolved": True, **who}]
    return {
        "route": {
            "receiver": "operator",
            "group_by": ["alertname", "node"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "12h",
        },
        "receivers": [{"name": "operator", **kinds}],
        # A node that does not answer explains all else that is missing of it.
        "inhibit_rules": [
            {
                "source_matchers": ['alertname="NodeDown"'],
                "target_matchers": ['alertname!="NodeDown"'],
                "equal": ["node"],
            }
        ],
    }


def _findings(given: Mapping[str, Any]) -> list[str]:
    """What is missing of a receiver. No message contains a secret."""
    found = []
    if given["mail_to"] and not (given["mail_host"] and given["mail_from"]):
        found.append(
            "monitoring_mail_to needs monitoring_mail_host, such as mail.example.net:587, and monitoring_mail_from."
        )
    found += [
        f"monitoring_{name} must be an address that begins with https:// or http://."
        for name in ("webhook_url", "slack_url")
        if given[name] and not str(given[name]).startswith(("https://", "http://"))
    ]
    return found
