#!/bin/busybox sh
# The partition `data`: what a node keeps over its boots. Whoever holds the disk wrote it: nothing there is believed, and the
# kernel starts no program from there (an interpreter that is told to read a file there would). Where the image has an owner
# it is encrypted (`unlock`), else an ext4 as it is. Where there is no file system yet, it gets one. The first KiB, which
# ext4 does not use, may hold a ticket that was written there instead of a file: it goes to the file $2 in memory, and
# stays where it is.
say() { echo "umec-node: $*" > /dev/console; }

device=
for entry in /sys/class/block/*/uevent; do
  grep -q '^PARTNAME=data$' "$entry" && device=/dev/$(sed -n 's/^DEVNAME=//p' "$entry")
done
[ -n "$device" ] || { say "data: there is no such partition"; exit 1; }

ticket=$(head -c 1024 "$device" | tr -d '\000' | head -n 1)
case $ticket in
  eyJ*) printf %s "$ticket" > "$2" ;;
  *) ticket= ;;
esac
owner=/etc/umec/owner.pem
if [ -e "$owner" ]; then
  whole=$device
  device=$(/usr/lib/umec/unlock "$whole") || {  # the node goes on in memory, as who it is (`umec_attest.agent.keepsake`)
    identity=$(dd if="$whole" bs=512 skip=1024 count=256 2> /dev/null | tr -d '\000')
    case $identity in
      '{'*) printf '%s\n' "$identity" > "$1/node.json" && chown umec-agent:umec-agent "$1/node.json" ;;
    esac
    exit 1
  }
  ticket=  # it lies before what is encrypted, and stays there
else
  say "data: not encrypted, for nobody owns this image"
fi
magic=$(dd if="$device" bs=2 skip=540 count=1 2> /dev/null | xxd -p)
if [ "$magic" != 53ef ]; then
  mkfs.ext4 -q -F "$device" || { say "data: no file system can be made"; exit 1; }
  [ -z "$ticket" ] || printf %s "$ticket" | dd of="$device" conv=notrunc 2> /dev/null
fi
mkdir -p "$1"
mount -t ext4 -o nosuid,nodev,noexec,noatime,errors=remount-ro "$device" "$1" || { say "data: it does not mount"; exit 1; }
chmod 0700 "$1"
[ ! -e "$owner" ] || say '{"event": "data-opened", "detail": "data partition opened by this TPM in the approved state"}'
