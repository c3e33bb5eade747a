#!/bin/busybox sh
# The encrypted part of the partition $1: opened, and made where the partition is blank; prints the device to mount.
#
#     0         1 KiB     room for a ticket
#     64 KiB    32 KiB    the token: the key of the data, sealed by this TPM (`umec_attest.agent.disk`), and zeros
#     512 KiB   128 KiB   who the node is, so that it can say why its data is closed (`umec_attest.agent.keepsake`)
#     1 MiB               the data, AES-XTS with a key of 512 bits in sectors of 4096 bytes: a file system from its making on
#     the end   4 KiB     for a mark while it is made (`making`)
#
# How it is encrypted stands here, thus in what is measured, and nowhere on the disk: whoever holds the disk chooses no
# cipher and no key. A key that this TPM unseals in a state that the owner of the image approved opens it.
# The first sector of the token is the last thing that is written: before that the partition is not made, and after it
# nothing is ever made anew. It may be what somebody wants back. Why it stays closed is said with a code.
set -u -o pipefail
. /usr/lib/umec/making
export DM_DISABLE_UDEV=1  # there is none
closed() { echo "umec-node: {\"event\": \"data-closed\", \"code\": \"$1\", \"detail\": \"$2\"}" > /dev/console; exit 1; }

part=$1 said=/run/umec/data-said token=/run/umec/data-token newline="
"
size=$((($(blocks "$part") - 257) * 8))  # sectors of 512 bytes
[ $size -ge 8192 ] || closed data-small "it has not 6 MiB"

agent() {  # what it refuses, it says itself
  rm -f /run/disk.pid
  start-stop-daemon -S -m -p /run/disk.pid -c umec-agent -x /usr/bin/python3 -- -I -m umec_attest.agent.disk "$@" \
    2> /dev/console
}
read_token() { dd if="$part" bs=512 skip=128 count=64 2> /dev/null; }
map() {  # with the key $1, which is never a word of a command: others read those
  case $1 in *[!0-9a-f]*) return 1 ;; esac
  [ ${#1} -eq 128 ] || return 1
  echo "0 $size crypt aes-xts-plain64 $1 0 $part 2048 1 sector_size:4096" | dmsetup create data > $said 2>&1
}
failed() { cat $said > /dev/console; [ ! -e /dev/mapper/data ] || dmsetup remove data; closed data-not-made "$1"; }

: > $said
not_blank="something is there, or cannot be read: erase all of it if nobody needs it"
! ext4 "$part" || closed data-not-blank "$not_blank"
if zero "$part" 512 128 1; then
  may_make "$part" || closed data-not-blank "$not_blank"
  made=$(agent seal) || exit 1
  key=${made%%"$newline"*}
  printf '%s\n' "${made#*"$newline"}" > $token && truncate -s 32768 $token || failed "there is no memory for it"
  [ "$(agent open < $token)" = "$key" ] || failed "what was sealed does not open"
  mark "$part" || failed "the disk does not take the mark"
  map "$key" || failed "the kernel does not encrypt it"
  mkfs.ext4 -q -F -b 4096 /dev/mapper/data > $said 2>&1 && sync || failed "no file system can be made"
  dd if=$token of="$part" bs=512 skip=1 seek=129 conv=notrunc,fsync 2> /dev/null \
    && dd if=$token of="$part" bs=512 seek=128 count=1 conv=notrunc,fsync 2> /dev/null \
    || failed "the disk does not take the token"
  rm $token
else
  key=$(read_token | agent open) || exit 1
  map "$key" || closed data-unopened "the kernel does not decrypt it"
fi
! marked "$part" || unmark "$part" || failed "the disk does not take the end of the mark"
dmsetup create identity --table "0 256 linear $part 1024" > /dev/null && chown umec-agent /dev/mapper/identity
echo /dev/mapper/data
