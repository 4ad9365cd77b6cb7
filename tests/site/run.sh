#!/bin/sh
# The documentation's site, and its planner in a browser: headless Chromium, Debian's own or the one that is there.
set -eu
cd "$(dirname "$0")/../.."
docs/site.sh
browser() {
  command -v chromium-headless-shell || command -v chromium || command -v google-chrome
}
if ! browser >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "[site] apt-get install chromium-headless-shell"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium-headless-shell >/dev/null || true
fi
if ! browser >/dev/null; then
  echo "the planner's page is not tested: this machine has no Chromium" >&2
  exit 77
fi
tests/venv.sh .venv-site tests/site/requirements.txt
PATH="$PWD/.venv/bin:$PATH" CHROMIUM=$(browser) exec .venv-site/bin/pytest tests/site "$@"
