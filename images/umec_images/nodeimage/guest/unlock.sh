#!/bin/busybox sh
# The encrypted part of the partition $1: opened, and made where the partition is blank; prints the device to mount. A key that
# this TPM unseals in a state that the owner of the image approved opens it (`umec_attest.agent.disk`); it goes from one
# program to the other through a pipe. The first MiB of the partition stays outside: a ticket may be written there, and the
# agent keeps there, from 512 KiB on, who the node is, so that it can say why its data is closed.
# What is there already is never made anew: it may be what somebody wants back. Why it stays closed is said with a code.
set -u -o pipefail
export DM_DISABLE_UDEV=1  # there is none
closed() { echo "umec-node: {\"event\": \"data-closed\", \"code\": \"$1\", \"detail\": \"$2\"}" > /dev/console; exit 1; }

part=/dev/mapper/data-part said=/run/umec/data-said header=/run/umec/data-header token=/run/umec-agent/data-token
sectors=$(cat "/sys/class/block/${1##*/}/size")
dmsetup create data-part --table "0 $((sectors - 2048)) linear $1 2048" > /dev/null || closed data-small "it has no MiB"

agent() {
  rm -f /run/disk.pid
  start-stop-daemon -S -m -p /run/disk.pid -c umec-agent -x /usr/bin/python3 -- -I -m umec_attest.agent.disk "$@" \
    2> /dev/console || touch /run/umec/data-refused
}
failed() { [ -e /run/umec/data-refused ] || { cat "$said" > /dev/console; closed "$@"; }; exit 1; }  # else it was said
begin() { dd if="$part" bs=512 skip="$1" count=1 2> /dev/null | head -c 6 | xxd -p; }

if [ "$(begin 0)" != 4c554b53babe ] && [ "$(begin 32)" != 534b554cbabe ]; then  # neither of the two headers of LUKS2
  found=$(dd if="$1" bs=1M count=2 2> /dev/null | tail -c +1025 | tr -d '\000' | head -c 1 | wc -c)
  [ "$found" -eq 0 ] || closed data-not-blank "something unencrypted is there: erase its first 2 MiB if nobody needs it"
  # The header comes onto the disk when it is whole and was opened: after a cut before that the partition is blank.
  # The key is random, so nothing is gained by a slow derivation from it. Without authentication (--integrity): who
  # changes what is on the disk gets 16 random bytes for each block of the cipher, which the file system's checksums
  # notice, and who puts an older state back would pass any authentication that the disk itself holds.
  truncate -s 1M "$header"
  agent seal --token "$token" | cryptsetup luksFormat --batch-mode --type luks2 --header "$header" --offset 2048 \
    --luks2-metadata-size 16k --luks2-keyslots-size 992k --cipher aes-xts-plain64 --key-size 512 --hash sha256 \
    --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - "$part" > "$said" 2>&1 \
    && cryptsetup token import --token-id 0 --json-file "$token" "$header" > "$said" 2>&1 \
    || failed data-not-made "it could not be encrypted"
  cryptsetup token export --token-id 0 "$header" | agent open \
    | cryptsetup open --type luks2 --header "$header" --key-file - "$part" data > "$said" 2>&1 \
    || failed data-not-made "what was made does not open"
  dd if="$header" of="$part" bs=4096 skip=8 seek=8 conv=notrunc,fsync 2> /dev/null \
    && dd if="$header" of="$part" bs=4096 count=8 conv=notrunc,fsync 2> /dev/null \
    || failed data-not-made "the disk does not take it"
  rm -f "$header" "$token"
else
  cryptsetup token export --token-id 0 "$part" 2> /dev/null | agent open \
    | cryptsetup open --type luks2 --key-file - "$part" data > "$said" 2>&1 \
    || failed data-unopened "the key of this node, if it has one, does not open it"
fi
dmsetup create identity --table "0 256 linear $1 1024" > /dev/null && chown umec-agent /dev/mapper/identity
echo /dev/mapper/data
