# Docker's five packages, made from Debian's binaries.
#
# Debian 12 has Docker 20.10, which knows no CDI. The engine of Debian 13 asks for a libc that Debian 12 has too, so both
# get it; runc does not, so each gets its own.

# The archive that this machine takes its packages from, a mirror of it included.
archive() {
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1
}

# quiet_apt CODENAME ARGUMENT...: apt-get with that suite of the archive and nothing of this machine's own lists.
quiet_apt() {
  state=$work/apt/$1
  suite=$1
  shift
  mkdir -p "$state/lists/partial" "$state/archives/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main" >"$state/sources.list"
  apt-get -qq -o "Dir::Etc::SourceList=$state/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$state/lists" \
    -o "Dir::Cache::Archives=$state/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
    -o APT::Sandbox::User=root "$@"
}

# download CODENAME PACKAGE...: the newest .deb of each into $work/deb/CODENAME.
download() {
  mkdir -p "$work/deb/$1"
  quiet_apt "$1" update
  from=$1
  shift
  (cd "$work/deb/$from" && quiet_apt "$from" download "$@")
}

fetch_engine() {
  archive=$(archive)
  say "fetch the engine from $archive"
  download trixie docker.io docker-cli containerd docker-compose docker-buildx runc
  download bookworm runc tini
  for deb in "$work"/deb/*/*.deb; do
    into=$work/tree/$(basename "$(dirname "$deb")")/$(basename "$deb" | cut -d_ -f1)
    mkdir -p "$into"
    dpkg-deb -x "$deb" "$into"
  done
  engine_version=$(upstream docker.io)
}

# upstream PACKAGE: 26.1.5 from 26.1.5+dfsg1-9.
upstream() {
  dpkg-deb -f "$work"/deb/trixie/"$1"_*.deb Version | sed 's/^[0-9]*://; s/[-+~].*//'
}

# pack NAME VERSION DESTINATION: the tree $work/new/NAME becomes a package; stdin is the rest of its control file.
pack() {
  root=$work/new/$1
  mkdir -p "$root/DEBIAN" "$3"
  {
    printf 'Package: %s\nVersion: %s\nArchitecture: %s\nSection: admin\nPriority: optional\n' "$1" "$2" "$arch"
    printf 'Maintainer: gpunode lab <lab@lab.gpunode.test>\nInstalled-Size: %s\n' "$(du -sk "$root" | cut -f1)"
    cat
  } >"$root/DEBIAN/control"
  [ -d "$root/etc" ] && (cd "$root" && find etc -type f | sed 's,^,/,') >"$root/DEBIAN/conffiles"
  dpkg-deb --root-owner-group -Zzstd -z5 -b "$root" "$3" >/dev/null
  rm -rf "$root"
}

# put SOURCE NAME PATH: copy a file of a fetched package into the package being made.
put() {
  mkdir -p "$work/new/$2/$(dirname "$3")"
  cp -a "$1" "$work/new/$2/$3"
}

pack_docker() {
  case $1 in bookworm) release=debian.12 ;; trixie) release=debian.13 ;; esac
  tag=1~$release~$1
  pool=$out/docker/linux/debian/dists/$1/pool/stable/$arch
  tree=$work/tree/trixie
  say "pack Docker $engine_version for $1"
  pack_containerd "$1"
  pack_engine
  put "$tree/docker-cli/usr/bin/docker" docker-ce-cli usr/bin/docker
  pack docker-ce-cli "5:$engine_version-$tag" "$pool" <<EOF
Depends: libc6 (>= 2.34)
Recommends: docker-buildx-plugin, docker-compose-plugin
Conflicts: docker (<< 1.5~), docker-engine, docker.io
Description: Docker CLI: the open-source application container engine
EOF
  for plugin in buildx compose; do
    file=usr/libexec/docker/cli-plugins/docker-$plugin
    put "$tree/docker-$plugin/$file" "docker-$plugin-plugin" "$file"
    {
      echo "Enhances: docker-ce-cli"
      [ $plugin = compose ] && echo "Conflicts: docker-compose"
      echo "Description: Docker $plugin CLI plugin"
    } | pack "docker-$plugin-plugin" "$(upstream docker-$plugin)-$tag" "$pool"
  done
}

# Like the real one it brings runc along.
pack_containerd() {
  for file in containerd containerd-shim-runc-v2 ctr; do put "$tree/containerd/usr/bin/$file" containerd.io "usr/bin/$file"; done
  put "$work/tree/$1/runc/usr/sbin/runc" containerd.io usr/bin/runc
  put "$here/docker/containerd.service" containerd.io usr/lib/systemd/system/containerd.service
  put "$here/docker/config.toml" containerd.io etc/containerd/config.toml
  put "$here/docker/containerd.postinst" containerd.io DEBIAN/postinst
  put "$here/docker/containerd.prerm" containerd.io DEBIAN/prerm
  pack containerd.io "$(upstream containerd)-$tag" "$pool" <<EOF
Depends: libc6 (>= 2.34), libseccomp2 (>= 2.5.0)
Provides: containerd, runc
Conflicts: containerd, runc
Replaces: containerd, runc
Description: An open and reliable container runtime
EOF
}

pack_engine() {
  put "$tree/docker.io/usr/sbin/dockerd" docker-ce usr/bin/dockerd
  put "$tree/docker.io/usr/sbin/docker-proxy" docker-ce usr/bin/docker-proxy
  put "$work/tree/bookworm/tini/usr/bin/tini-static" docker-ce usr/bin/docker-init
  put "$here/docker/docker.service" docker-ce usr/lib/systemd/system/docker.service
  put "$here/docker/docker.socket" docker-ce usr/lib/systemd/system/docker.socket
  put "$here/docker/docker.postinst" docker-ce DEBIAN/postinst
  put "$here/docker/docker.prerm" docker-ce DEBIAN/prerm
  pack docker-ce "5:$engine_version-$tag" "$pool" <<EOF
Depends: containerd.io, docker-ce-cli, iptables, libc6 (>= 2.34), libsystemd0
Conflicts: docker (<< 1.5~), docker-engine, docker.io
Replaces: docker-engine
Description: Docker: the open-source application container engine
EOF
}
