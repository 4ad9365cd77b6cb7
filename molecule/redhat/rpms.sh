#!/bin/sh
# Two repositories of empty packages as the publishers lay theirs out: Docker signs each package, NVIDIA the metadata. A third
# is like Docker's, and a stranger has signed it. A fourth is the distribution's own.
set -eu
export GNUPGHOME=/root/rpm-keys
mkdir -p -m 0700 "$GNUPGHOME"

key() {  # NAME FOLDER
  gpg --batch -q --passphrase '' --quick-generate-key "$1" rsa2048 sign never
  gpg --armor --export "$1" >"$2/gpg"
  gpg --with-colons --list-keys "$1" | awk -F: '$1 == "fpr" {print $10; exit}' >"$2/fingerprint"
}

package() {  # FOLDER NAME VERSION RELEASE [EPOCH]
  spec=$(mktemp --suffix=.spec)
  cat >"$spec" <<END
Name: $2
Version: $3
Release: $4
Epoch: ${5:-0}
Summary: A stand-in
License: GPL-3.0-or-later
BuildArch: noarch
%description
A stand-in.
$([ "$2" != docker-ce ] || echo '%pre -p <lua>
os.execute("getent group docker >/dev/null || groupadd --system docker")
%install
install -Dm0644 /root/docker.service %{buildroot}/usr/lib/systemd/system/docker.service')
%files
$([ "$2" != docker-ce ] || echo /usr/lib/systemd/system/docker.service)
END
  rpmbuild --quiet -bb --define "_rpmdir $1" --define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.rpm' "$spec"
}

cat >/root/docker.service <<END
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecReload=/bin/true
[Install]
WantedBy=multi-user.target
END

arch=$(uname -m)
docker=/srv/rpm/docker/9/$arch/stable
stranger=/srv/rpm/stranger/9/$arch/stable
nvidia=/srv/rpm/nvidia/$arch
# Each RHEL has the last one; Debian's dnf comes without.
mkdir -p "$docker" "$stranger" "$nvidia" /srv/rpm/distribution /etc/yum.repos.d
for version in 29.7.2 29.8.1 29.80.0; do
  package "$docker" docker-ce $version 1.el9 3
  package "$docker" docker-ce-cli $version 1.el9 1
done
for name in containerd.io docker-buildx-plugin docker-compose-plugin; do package "$docker" $name 2.1.5 1.el9; done
for version in 1.19.0 1.20.0 1.20.1; do
  for name in nvidia-container-toolkit nvidia-container-toolkit-base libnvidia-container-tools libnvidia-container1; do
    package "$nvidia" $name $version 1
  done
done
package /srv/rpm/distribution podman-docker 5.4.0 1.el9
rpm -i /srv/rpm/distribution/*.rpm
for name in python3.11 python3-packaging rsync; do package /srv/rpm/distribution $name 1.0 1.el9; done
createrepo_c -q /srv/rpm/distribution

cp "$docker"/* "$stranger"
key docker /srv/rpm/docker
key stranger /srv/rpm/stranger
key nvidia /srv/rpm/nvidia
rpmsign --define '__gpg /usr/bin/gpg' --define '_gpg_name docker' --addsign "$docker"/*.rpm >/dev/null
rpmsign --define '__gpg /usr/bin/gpg' --define '_gpg_name stranger' --addsign "$stranger"/*.rpm >/dev/null
for folder in "$docker" "$stranger" "$nvidia"; do createrepo_c -q "$folder"; done
gpg --batch -q -u nvidia --detach-sign --armor "$nvidia/repodata/repomd.xml"
touch /srv/rpm/complete
