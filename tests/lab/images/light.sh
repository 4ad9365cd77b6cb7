# Not an engine: a server that answers as one does, for tests of everything around it. A second to start, no model.
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends python3-minimal libpython3-stdlib >/dev/null
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/doc /usr/share/man
{ echo '#!/usr/bin/python3'; cat /lab/images/light_engine.py; } >/usr/local/bin/vllm
chmod 0755 /usr/local/bin/vllm
