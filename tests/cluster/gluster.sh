#!/usr/bin/env bash
# A real network filesystem on this machine's loopback address: GlusterFS with two bricks under distribute, mounted N
# times with the translators of a default mount; a mount stands for a node.
#   gluster.sh start [N]   (default 2; prints the mount points, one a line)
#   gluster.sh stop
# Needs root, /dev/fuse and Debian's packages glusterfs-server and glusterfs-client (installed when missing). Attributes
# and entries are cached for a second on each mount, as NFS clients do. State lives in $GLUSTER_LOOPBACK (default:
# gluster-loopback under the temporary directory).
set -euo pipefail
dir=${GLUSTER_LOOPBACK:-${TMPDIR:-/tmp}/gluster-loopback}
port=24999

volume() { # name, type, subvolumes, options as "name value"
  local name=$1 type=$2 subvolumes=$3 option
  shift 3
  printf 'volume %s\n  type %s\n' "$name" "$type"
  for option in "$@"; do printf '  option %s\n' "$option"; done
  [ -z "$subvolumes" ] || printf '  subvolumes %s\n' "$subvolumes"
  printf 'end-volume\n'
}

server() {
  local brick
  for brick in 1 2; do
    volume "posix$brick" storage/posix "" "directory $dir/brick$brick"
    volume "brick$brick" features/locks "posix$brick"
  done
  volume server protocol/server "brick1 brick2" "transport-type tcp" "transport.socket.bind-address 127.0.0.1" \
    "transport.socket.listen-port $port" "auth.addr.brick1.allow 127.0.0.1" "auth.addr.brick2.allow 127.0.0.1"
}

client() {
  local brick
  for brick in 1 2; do
    volume "client$brick" protocol/client "" "transport-type tcp" "remote-host 127.0.0.1" "remote-port $port" \
      "remote-subvolume brick$brick"
  done
  volume distribute cluster/distribute "client1 client2"
  volume write-behind performance/write-behind distribute
  volume readdir-ahead performance/readdir-ahead write-behind
  volume io-cache performance/io-cache readdir-ahead
  volume quick-read performance/quick-read io-cache
  volume open-behind performance/open-behind quick-read
  volume md-cache performance/md-cache open-behind "md-cache-timeout 1"
}

start() {
  local nodes=${1:-2} i
  command -v glusterfsd >/dev/null || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq glusterfs-server glusterfs-client >/dev/null
  }
  mkdir -p "$dir"/brick1 "$dir"/brick2 "$dir"/log
  server >"$dir/server.vol"
  client >"$dir/client.vol"
  timeout 20 glusterfsd -f "$dir/server.vol" --log-file="$dir/log/server.log" --pid-file="$dir/server.pid"
  sleep 1
  for ((i = 1; i <= nodes; i++)); do
    mkdir -p "$dir/node$i"
    timeout 20 glusterfs -f "$dir/client.vol" --log-file="$dir/log/node$i.log" --pid-file="$dir/node$i.pid" \
      --entry-timeout=1 --attribute-timeout=1 --negative-timeout=1 "$dir/node$i"
  done
  for ((i = 1; i <= nodes; i++)); do
    timeout 20 sh -c "until mountpoint -q '$dir/node$i'; do sleep 0.2; done"
    echo "$dir/node$i"
  done
}

stop() {
  local mount
  for mount in "$dir"/node*; do
    [ -d "$mount" ] && mountpoint -q "$mount" && umount -l "$mount" || true
  done
  [ -f "$dir/server.pid" ] && kill "$(cat "$dir/server.pid")" 2>/dev/null || true
  sleep 1
  rm -rf "$dir"/brick1 "$dir"/brick2
}

case ${1:-} in
  start) start "${2:-2}" ;;
  stop) stop ;;
  *) sed -n '2,9p' "$0"; exit 2 ;;
esac
