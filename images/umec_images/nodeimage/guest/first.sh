#!/bin/busybox sh
# The first program of a node: opens the root file system whose hash the signed command line gives, and goes on there.
# It ends only there: an end before that is a panic, and what a panic does, the command line says.
set -eu
export PATH=/bin:/sbin DM_DISABLE_UDEV=1  # there is none: dmsetup makes its nodes itself
/bin/busybox --install -s /bin
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o nosuid,noexec devtmpfs /dev

say() { echo "umec-node: $*" > /dev/console; }
stop() { say "stopped: $*"; exit 1; }

roothash= verity=
for word in $(cat /proc/cmdline); do
  case $word in
    roothash=*) roothash=${word#*=} ;;
    umec.verity=*) verity=${word#*=} ;;
  esac
done
blocks=${verity%%:*} salt=${verity#*:}
[ ${#roothash} -eq 64 ] && [ ${#salt} -eq 64 ] || stop "the command line names no root file system"

while read -r module; do
  insmod "/modules/$module" || stop "the module $module does not load"
done < /modules/order

# Which slot it is says a label behind the data; nothing relies on it, for every block is checked against the root hash.
label=$(echo "$roothash" | cut -c1-32)
slot=
find_slot() {
  for entry in /sys/class/block/*/uevent; do
    case $(sed -n 's/^PARTNAME=//p' "$entry") in
      root-a | root-b) ;;
      *) continue ;;
    esac
    device=/dev/$(sed -n 's/^DEVNAME=//p' "$entry")
    found=$(dd if="$device" bs=4096 skip="$blocks" count=1 2> /dev/null | dd bs=16 skip=1 count=1 2> /dev/null | xxd -p)
    [ "$found" = "$label" ] || continue
    slot=$device name=$(sed -n 's/^PARTNAME=//p' "$entry")
    return 0
  done
  return 1
}
tries=0
until find_slot; do
  tries=$((tries + 1))
  [ $tries -lt 100 ] || stop "no slot holds the root file system $roothash"
  sleep 0.2
done

dmsetup create root --readonly --table \
  "0 $((blocks * 8)) verity 1 $slot $slot 4096 4096 $blocks $((blocks + 1)) sha256 $roothash $salt 1 panic_on_corruption" \
  > /dev/null || stop "dm-verity does not open $slot"
mount -t squashfs -o ro,nodev,nosuid /dev/mapper/root /system || stop "the root file system does not mount"
say "root $roothash from $name"
for folder in proc sys dev; do
  mount --move /$folder /system/$folder
done
exec switch_root /system /usr/lib/umec/init
