#!/bin/sh
# Pyodide, Python for browsers, from the npm registry: unpacked once outside the checkout, and linked as $1.
set -eu
link=$1
version=314.0.7
# As the registry has it: base64 of the archive's SHA-512.
integrity=0YvXxEhfEdpLfb/XkM2BFAeMROq0iMUX2bzzH9pOttyMcWkwq+HbE5uyuGD82LN7y2q+SNvi/6V5JEsOlD2R1A==
cache=${GPUNODE_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gpunode-lab}
folder=$cache/pyodide-$version
if [ ! -e "$folder/complete" ]; then
  if ! command -v npm >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      echo "[site] apt-get install npm"
      apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm >/dev/null
    else
      echo "needs npm, to fetch Pyodide for the page of the planner" >&2
      exit 1
    fi
  fi
  rm -rf "$folder"
  mkdir -p "$folder"
  npm pack --silent --pack-destination "$folder" "pyodide@$version" >/dev/null
  got=$(openssl dgst -sha512 -binary "$folder/pyodide-$version.tgz" | base64 | tr -d '\n')
  if [ "$got" != "$integrity" ]; then
    echo "pyodide $version is not what it was: its SHA-512 is $got, and $integrity is expected" >&2
    exit 1
  fi
  tar -xzf "$folder/pyodide-$version.tgz" -C "$folder"
  rm "$folder/pyodide-$version.tgz"
  touch "$folder/complete"
fi
ln -sfn "$folder/package" "$link"
