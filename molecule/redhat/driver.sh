#!/bin/sh
# NVIDIA's repository of RHEL 9 with two streams of its driver, each package signed: what molecule/driver has for apt. Needs rpms.sh before.
set -eu
export GNUPGHOME=/root/rpm-keys
files=/srv/driver-files
out=/srv/driver/rhel9/$(uname -m)
work=$(mktemp -d)
mkdir -p "$out" "/lib/modules/$(uname -r)/build"

# package NAME VERSION, with what the tree $work/NAME holds; stdin is further sections of the spec.
package() {
  mkdir -p "$work/$1"
  {
    printf 'Name: %s\nVersion: %s\nRelease: 1.el9\nEpoch: 3\nSummary: A stand-in\nLicense: GPL-3.0-or-later\nBuildArch: noarch\n' "$1" "$2"
    printf 'AutoReqProv: no\n%%description\nA stand-in.\n%%install\ncp -a %s/. %%{buildroot}\n' "$work/$1"
    cat
    echo %files
    (cd "$work/$1" && find . -type f | cut -c2-)
  } >"$work/spec"
  rpmbuild --quiet -bb --define "_rpmdir $out" --define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.rpm' "$work/spec"
  rm -rf "${work:?}/$1"
  echo "        - $1-3:$2-1.el9.noarch" >>"$work/artifacts"
}

driver() {
  mkdir -p "$work/nvidia-driver-cuda/usr/bin" "$work/nvidia-persistenced/usr/lib/systemd/system"
  cat "$files/nvidia-smi" "$files/lab-nvidia-smi" | sed "s/@VERSION@/$1/" >"$work/nvidia-driver-cuda/usr/bin/nvidia-smi"
  chmod 0755 "$work/nvidia-driver-cuda/usr/bin/nvidia-smi"
  package nvidia-driver-cuda "$1" </dev/null
  printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' \
    >"$work/nvidia-persistenced/usr/lib/systemd/system/nvidia-persistenced.service"
  package nvidia-persistenced "$1" </dev/null
  package nvidia-modprobe "$1" </dev/null
  package kmod-nvidia-open-dkms "$1" <<END
%post -p <lua>
os.execute("mkdir -p /lib/modules/\$(uname -r)/updates/dkms && printf 'version:        $1\\\\nlicense:        Dual MIT/GPL\\\\n' >/lib/modules/\$(uname -r)/updates/dkms/nvidia.ko")
END
}

stream() {
  : >"$work/artifacts"
  name=$1
  shift
  for version in "$@"; do driver "$version"; done
  cat >>"$work/modules.yaml" <<END
---
document: modulemd
version: 2
data:
  name: nvidia-driver
  stream: "$name"
  version: 20261005
  context: "00000000"
  arch: $(uname -m)
  summary: NVIDIA's driver
  description: A stand-in.
  license:
    module: [MIT]
  artifacts:
    rpms:
$(sed 's/^  //' "$work/artifacts")
END
}

stream 580-open 580.173.02 580.178.04
stream 595-open 595.71.05
# EPEL's, for this test.
printf 'Name: dkms\nVersion: 3.2.1\nRelease: 1.el9\nSummary: A stand-in\nLicense: GPL-3.0-or-later\nBuildArch: noarch\n%%description\nA stand-in.\n%%files\n' >"$work/spec"
rpmbuild --quiet -bb --define "_rpmdir /srv/rpm/distribution" --define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.rpm' "$work/spec"
createrepo_c -q /srv/rpm/distribution

gpg --batch -q --passphrase '' --quick-generate-key driver rsa2048 sign never
gpg --armor --export driver >"$out/key.pub"
gpg --with-colons --list-keys driver | awk -F: '$1 == "fpr" {print $10; exit}' >/srv/driver/fingerprint
rpmsign --define '__gpg /usr/bin/gpg' --define '_gpg_name driver' --addsign "$out"/*.rpm >/dev/null
createrepo_c -q "$out"
modifyrepo_c --mdtype=modules "$work/modules.yaml" "$out/repodata" >/dev/null
touch /srv/driver/complete
