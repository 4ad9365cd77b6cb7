# Indexes, Release files and signatures.

release() {
  apt-ftparchive -o "APT::FTPArchive::Release::Origin=$1" -o "APT::FTPArchive::Release::Label=$2" \
    -o "APT::FTPArchive::Release::Suite=$3" -o "APT::FTPArchive::Release::Architectures=$arch" \
    -o "APT::FTPArchive::Release::Components=$4" release .
}

# publish_docker ROOT WHO
publish_docker() {
  for codename in $codenames; do
    (
      cd "$1"
      index=dists/$codename/stable/binary-$arch
      mkdir -p "$index"
      apt-ftparchive packages "dists/$codename/pool" >"$index/Packages"
      gzip -9nk "$index/Packages"
      cd "dists/$codename"
      rm -f Release
      release Docker "Docker CE" "$codename" stable >"$work/Release"
      mv "$work/Release" Release
    )
    sign "$1/dists/$codename" "$2"
  done
  cp "$work/$2.asc" "$1/gpg"
}

# publish_nvidia ROOT WHO: a flat repository.
publish_nvidia() {
  (
    cd "$1/stable/deb/$arch"
    apt-ftparchive packages . >Packages
    gzip -9nk Packages
    release NVIDIA "libnvidia-container" "" "" >"$work/Release"
    mv "$work/Release" Release
  )
  sign "$1/stable/deb/$arch" "$2"
  cp "$work/$2.asc" "$1/gpgkey"
}

# The same packages and indexes, signed by somebody else: what a hijacked mirror would serve.
publish_swapped() {
  mkdir -p "$out/swapped"
  cp -al "$out/docker" "$out/nvidia" "$out/swapped/"
  root=$out/swapped/docker/linux/debian
  for codename in $codenames; do sign "$root/dists/$codename" stranger; done
  sign "$out/swapped/nvidia/libnvidia-container/stable/deb/$arch" stranger
  rm "$root/gpg" "$out/swapped/nvidia/libnvidia-container/gpgkey"
  cp "$work/stranger.asc" "$root/gpg"
  cp "$work/stranger.asc" "$out/swapped/nvidia/libnvidia-container/gpgkey"
}

write_vars() {
  cat >"$out/vars.json" <<EOF
{
  "docker_apt_key_fingerprint": "$(fingerprint docker)",
  "nvidia_container_toolkit_apt_key_fingerprint": "$(fingerprint nvidia)",
  "stranger_key_fingerprint": "$(fingerprint stranger)",
  "docker_version": "5:$engine_version"
}
EOF
}
