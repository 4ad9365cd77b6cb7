# NVIDIA's four packages, as stand-ins: what they install behaves as recorded from the real ones (see stand-ins/).

pack_nvidia() {
  version=$1
  pool=$out/nvidia/libnvidia-container/stable/deb/$arch
  say "pack the NVIDIA Container Toolkit $version (stand-in)"
  for tool in nvidia-ctk nvidia-container-runtime nvidia-cdi-hook; do
    put "$stand_ins/$tool" nvidia-container-toolkit-base "usr/bin/$tool"
  done
  sed -i "s/@VERSION@/${version%-*}/" "$work/new/nvidia-container-toolkit-base/usr/bin/nvidia-ctk"
  put "$here/nvidia/nvidia-cdi-refresh.service" nvidia-container-toolkit-base etc/systemd/system/nvidia-cdi-refresh.service
  put "$here/nvidia/nvidia-cdi-refresh.path" nvidia-container-toolkit-base etc/systemd/system/nvidia-cdi-refresh.path
  put "$here/nvidia/nvidia-cdi-refresh.env" nvidia-container-toolkit-base etc/nvidia-container-toolkit/nvidia-cdi-refresh.env
  put "$here/nvidia/base.postinst" nvidia-container-toolkit-base DEBIAN/postinst
  pack nvidia-container-toolkit-base "$version" "$pool" <<EOF
Depends: python3
Description: NVIDIA Container Toolkit Base (a stand-in of the lab)
EOF
  put "$stand_ins/nvidia-container-runtime-hook" nvidia-container-toolkit usr/bin/nvidia-container-runtime-hook
  pack nvidia-container-toolkit "$version" "$pool" <<EOF
Depends: nvidia-container-toolkit-base (= $version), libnvidia-container-tools (>= $version), libnvidia-container-tools (<< 2.0.0)
Description: NVIDIA Container toolkit (a stand-in of the lab)
EOF
  put "$here/nvidia/nvidia-container-cli" libnvidia-container-tools usr/bin/nvidia-container-cli
  pack libnvidia-container-tools "$version" "$pool" <<EOF
Depends: libnvidia-container1 (>= $version)
Description: NVIDIA container runtime library, command-line tools (a stand-in of the lab)
EOF
  mkdir -p "$work/new/libnvidia-container1"
  pack libnvidia-container1 "$version" "$pool" <<EOF
Description: NVIDIA container runtime library (a stand-in of the lab)
EOF
}
