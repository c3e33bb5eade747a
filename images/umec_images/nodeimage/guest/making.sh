#!/bin/busybox sh
# What the programs have in common that make a file system on the partition `data`: where that may be done, and how a begin
# without an end is known. Never where something could be lost: all of its first 16 MiB and of its last MiB has to be read,
# and zero but for a ticket. What cannot be read is not blank.
# The last 4 KiB belong to no file system. They hold a mark from before the first change to after the last one: after a
# power cut in between it is made from its beginning. Who writes the mark himself could as well erase all of it.
MARK=umec-node-is-making-this
HEAD=4096 TAIL=256 # blocks of 4 KiB

blocks() { echo $(($(cat "/sys/class/block/${1##*/}/size") / 8)); }
last() { echo $(($(blocks "$1") - 1)); }
# Whether $4 blocks of $2 bytes from block $3 of the device $1 on were read, all of them, and are zero.
zero() { dd if="$1" bs="$2" skip="$3" count="$4" 2> /dev/null | cmp -s -n "$(($2 * $4))" - /dev/zero; }
marked() { [ "$(dd if="$1" bs=4096 skip="$(last "$1")" count=1 2> /dev/null | tr -d '\000')" = "$MARK" ]; }
ext4() { [ "$(dd if="$1" bs=2 skip=540 count=1 2> /dev/null | xxd -p)" = 53ef ]; }
mark() { printf %s "$MARK" | dd of="$1" bs=4096 seek="$(last "$1")" conv=notrunc,sync,fsync 2> /dev/null; }
unmark() { dd if=/dev/zero of="$1" bs=4096 seek="$(last "$1")" count=1 conv=notrunc,fsync 2> /dev/null; }

blank() {
  all=$(blocks "$1") head=$HEAD tail=$TAIL
  [ "$all" -ge "$head" ] || head=$all
  [ "$all" -ge "$tail" ] || tail=$all
  case $(head -c 3 "$1" | tr -d '\000') in
    '') zero "$1" 512 0 2 || return 1 ;;
    eyJ) ;; # a ticket
    *) return 1 ;;
  esac
  zero "$1" 512 2 6 && zero "$1" 4096 1 $((head - 1)) && zero "$1" 4096 $((all - tail)) $tail
}
may_make() { marked "$1" || blank "$1"; } # where no ext4 is
