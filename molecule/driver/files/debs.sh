#!/bin/sh
# NVIDIA's repository of this system in /srv/driver, signed: packages by its names, with stand-ins for what they do.
#
#   nvidia-kernel-open-dkms   "builds" a module, if the headers of the kernel are there
#   nvidia-driver-cuda        nvidia-smi, and a library of its version
#   nvidia-fabricmanager      starts with a driver of its own version alone; none of 580.178.04
set -eu
here=$1
system=$2
arch=$(dpkg --print-architecture)
out=/srv/driver/$system/$(uname -m)
work=$(mktemp -d)
mkdir -p "$out"
export GNUPGHOME=/root/driver-keys
mkdir -p -m 0700 "$GNUPGHOME"

# pack NAME VERSION [FIELD...]: the tree $work/NAME becomes a package.
pack() {
  name=$1 full=$2
  shift 2
  mkdir -p "$work/$name/DEBIAN"
  {
    printf 'Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: gpunode lab <lab@lab.gpunode.test>\n' "$name" "$full" "$arch"
    for field in "$@"; do echo "$field"; done
    echo "Description: a stand-in of the lab"
  } >"$work/$name/DEBIAN/control"
  dpkg-deb --root-owner-group -b "$work/$name" "$out" >/dev/null
  rm -rf "${work:?}/$name"
}

# service PACKAGE NAME COMMAND
service() {
  mkdir -p "$work/$1/lib/systemd/system" "$work/$1/DEBIAN"
  printf '#!/bin/sh\nsystemctl daemon-reload\n' >"$work/$1/DEBIAN/postinst"
  chmod 0755 "$work/$1/DEBIAN/postinst"
  cat >"$work/$1/lib/systemd/system/$2.service" <<END
[Unit]
Description=$2 (a stand-in of the lab)
[Service]
ExecStartPre=/bin/sh -c 'grep -qF "  $version  " /proc/driver/nvidia/version || { echo "$2 NVIDIA GPU driver interface version $version do not match with driver version. Please update with matching NVIDIA driver package."; exit 1; }'
ExecStart=$3
[Install]
WantedBy=multi-user.target
END
}

driver() {
  version=$1
  mkdir -p "$work/nvidia-kernel-open-dkms/DEBIAN"
  cat >"$work/nvidia-kernel-open-dkms/DEBIAN/postinst" <<END
#!/bin/sh
set -e
[ -e /lib/modules/\$(uname -r)/build ] || { echo "Error! Your kernel headers for kernel \$(uname -r) cannot be found." >&2; exit 1; }
mkdir -p /lib/modules/\$(uname -r)/updates/dkms
printf 'version:        $version\nlicense:        Dual MIT/GPL\n' >/lib/modules/\$(uname -r)/updates/dkms/nvidia.ko
END
  printf '#!/bin/sh\n[ "$1" != remove ] || rm -f /lib/modules/*/updates/dkms/nvidia.ko\n' >"$work/nvidia-kernel-open-dkms/DEBIAN/prerm"
  chmod 0755 "$work"/nvidia-kernel-open-dkms/DEBIAN/p*
  pack nvidia-kernel-open-dkms "$version-1"

  mkdir -p "$work/nvidia-driver-cuda/usr/bin"
  cat "$here/nvidia-smi" "$here/lab-nvidia-smi" | sed "s/@VERSION@/$version/" >"$work/nvidia-driver-cuda/usr/bin/nvidia-smi"
  chmod 0755 "$work/nvidia-driver-cuda/usr/bin/nvidia-smi"
  pack nvidia-driver-cuda "$version-1" "Depends: libnvidia-ml1 (= $version-1), nvidia-persistenced (= $version-1)"
  pack libnvidia-ml1 "$version-1"
  service nvidia-persistenced nvidia-persistenced "/bin/sleep infinity"
  pack nvidia-persistenced "$version-1"
  pack nvidia-modprobe "$version-1"
}

manager() {
  version=$1
  mkdir -p "$work/nvidia-fabricmanager/usr/bin"
  printf '#!/bin/sh\n[ "$1" != --version ] || { echo "Fabric Manager version is : %s"; exit; }\nexec sleep infinity\n' "$version" \
    >"$work/nvidia-fabricmanager/usr/bin/nv-fabricmanager"
  chmod 0755 "$work/nvidia-fabricmanager/usr/bin/nv-fabricmanager"
  service nvidia-fabricmanager nvidia-fabricmanager /usr/bin/nv-fabricmanager
  pack nvidia-fabricmanager "$version-1"
}

for version in 580.126.09 580.173.02 580.178.04 595.71.05; do driver $version; done
for version in 580.126.09 580.173.02 595.71.05; do manager $version; done
mkdir -p "$work/linux-headers-$(uname -r)/lib/modules/$(uname -r)/build"
pack "linux-headers-$(uname -r)" 1.0-1

gpg --batch -q --passphrase '' --quick-generate-key driver rsa2048 sign never
gpg --armor --export driver >"$out/key.pub"
gpg --with-colons --list-keys driver | awk -F: '$1 == "fpr" {print $10; exit}' >/srv/driver/fingerprint
cd "$out"
apt-ftparchive packages . >Packages
apt-ftparchive -o APT::FTPArchive::Release::Origin=NVIDIA -o APT::FTPArchive::Release::Label=driver release . >"$work/Release"
mv "$work/Release" Release
gpg --batch -q --clearsign --output InRelease Release
chmod -R go+rX /srv/driver
touch /srv/driver/complete
