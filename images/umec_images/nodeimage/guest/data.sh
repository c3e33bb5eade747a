#!/bin/busybox sh
# The partition `data`: what a node keeps over its boots. Whoever holds the disk wrote it: nothing there is believed, and the
# kernel starts no program from there (an interpreter that is told to read a file there would). Where the image has an owner
# it is encrypted (`unlock`), else an ext4 as it is. Where nothing is yet, it gets a file system (`making`); anything else
# stays as it is. The first KiB, which ext4 does not use, may hold a ticket that was written there instead of a file: it
# goes to the file $2 in memory, and stays where it is.
# It is the one on the disk that the root file system came from: others may have partitions of that name.
set -o pipefail
. /usr/lib/umec/making
say() { echo "umec-node: $*" > /dev/console; }
closed() { say "{\"event\": \"data-closed\", \"code\": \"$1\", \"detail\": \"$2\"}"; }

slot= device=
for entry in /sys/class/block/dm-*; do
  [ "$(cat "$entry/dm/name")" = root ] && slot=$(ls "$entry/slaves")
done
disk=$(readlink -f "/sys/class/block/$slot") && disk=${disk%/*}
for entry in "$disk"/*/uevent; do
  grep -qs '^PARTNAME=data$' "$entry" && device=/dev/$(sed -n 's/^DEVNAME=//p' "$entry") && break
done
[ -n "$slot" ] && [ -n "$device" ] || { say "data: there is no such partition on the disk of $slot"; exit 1; }

ticket=$(head -c 1024 "$device" | tr -d '\000' | head -n 1)
case $ticket in
  eyJ*) printf %s "$ticket" > "$2" ;;
  *) ticket= ;;
esac
owner=/etc/umec/owner.pem
keepsake() {  # the node goes on in memory, as who it is (`umec_attest.agent.keepsake`)
  identity=$(dd if="$1" bs=512 skip=1024 count=256 2> /dev/null | tr -d '\000')
  case $identity in
    '{'*) printf '%s\n' "$identity" > "$2/node.json" && chown umec-agent:umec-agent "$2/node.json" ;;
  esac
}
opened=$device
if [ -e "$owner" ]; then
  opened=$(/usr/lib/umec/unlock "$device") || { keepsake "$device" "$1"; exit 1; }
else
  say "data: not encrypted, for nobody owns this image"
  if ! ext4 "$device"; then
    may_make "$device" || { closed data-not-blank "no file system, and not blank, or not read: erase all of it"; exit 1; }
    mark "$device" && mkfs.ext4 -q -F "$device" $((($(blocks "$device") - 1) * 4))k \
      && { [ -z "$ticket" ] || printf %s "$ticket" | dd of="$device" conv=notrunc,fsync 2> /dev/null; } \
      || { closed data-not-made "no file system can be made"; exit 1; }
  fi
  ! marked "$device" || unmark "$device" || { closed data-not-made "the disk does not take the end of the mark"; exit 1; }
fi
mkdir -p "$1"
if ! mount -t ext4 -o nosuid,nodev,noexec,noatime,errors=remount-ro "$opened" "$1"; then
  closed data-unopened "what is there does not mount: it is damaged, or somebody else wrote it"
  [ ! -e "$owner" ] || { dmsetup remove data; keepsake "$device" "$1"; }
  exit 1
fi
chmod 0700 "$1"
[ ! -e "$owner" ] || say '{"event": "data-opened", "detail": "data partition opened by this TPM in the approved state"}'
