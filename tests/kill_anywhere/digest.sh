# What a node has come to, a line a thing: packages, files, units, Docker, groups, weights. Two nodes on which the same was
# done print the same. Left out is what every node has of its own or what only says when.
export LC_ALL=C
dpkg-query -W -f='package ${Package} ${Version} ${db:Status-Status}\n'
apt-mark showmanual | sed 's/^/manual /'
apt-mark showhold | sed 's/^/held /'
# Keys of the machine, what Docker outside writes here, caches of the linker, backups that passwd and friends make.
find /etc /usr/local /opt /var/lib/gpunode /var/lib/huggingface \
  \( -path /etc/ssh -o -path '*/__pycache__' -o -path '*/.locks' -o -path /var/lib/gpunode/jobs \) -prune -o \
  \( -name machine-id -o -name hosts -o -name hostname -o -name resolv.conf -o -name mtab -o -name ld.so.cache -o -name '*-' \
     -o -path /etc/gpunode-lab/\* \) -o -type f -printf '%m %u %g %p\n' |
  while read -r mode user group path; do
    case $path in
      # These hold the time at which they were written.
      /var/lib/huggingface/hub/*/manifests/*) sum=$(sed 's/"[a-z_]*\(at\|time\)": *[^,}]*//g' "$path" | sha256sum) ;;
      /etc/shadow) sum=$(cut -d: -f1,2 "$path" | sha256sum) ;;
      *) sum=$(sha256sum <"$path") ;;
    esac
    echo "file $path $mode $user $group ${sum%% *}"
  done | sort
find /etc /usr/local /var/lib/huggingface/hub -path /etc/ssh -prune -o -type l -printf 'link %p %l\n' | sort
# A container's scope has the container's own number in its name.
systemctl list-unit-files --no-legend --plain | awk '$1 !~ /^docker-[0-9a-f]*[.]scope$/ { print "unit", $1, $2 }'
systemctl list-units --all --no-legend --plain 'vllm-*' 'gpunode-*' 'docker.*' 'containerd.*' | awk '{ print "runs", $1, $2, $3, $4 }'
systemctl --failed --no-legend --plain | awk '{ print "failed", $1 }'
systemctl show --property=NeedDaemonReload '*' 2>/dev/null | grep -c yes | sed 's/^/units that systemd has not read again: /'
docker images --no-trunc --format 'image {{.Repository}}:{{.Tag}} {{.ID}}' | sort
docker ps --all --format 'container {{.Names}} {{.Image}} {{.State}}' | sort
docker info --format 'docker {{json .Runtimes}} {{json .RegistryConfig.InsecureRegistryCIDRs}}'
id lab
curl -fsS -m 10 http://127.0.0.1:8000/v1/models && echo
