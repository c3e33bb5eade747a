#!/bin/busybox sh
# Process 1 of a node, from the verified root file system: file systems, network, and the agent, started again when it ends.
export PATH=/usr/sbin:/usr/bin
say() { echo "umec-node: $*" > /dev/console; }

mount -t tmpfs -o nosuid,nodev,noexec,mode=0755 tmpfs /run
mount -t tmpfs -o nosuid,nodev,noexec,mode=1777 tmpfs /tmp
mount -t tmpfs -o nosuid,nodev,noexec,mode=0755 tmpfs /var
mount -t securityfs -o nosuid,nodev,noexec securityfs /sys/kernel/security
/usr/lib/umec/measure || { say "stopped: the kernel does not take the policy by which it measures"; exit 1; }
mkdir -p /var/lib /var/log
hostname "$(cat /etc/hostname)"
while read -r module; do
  modprobe "$module" || say "the module $module does not load"
done < /etc/umec/modules

ip link set lo up
for link in /sys/class/net/*; do
  link=${link##*/}
  grep -qs "^$link " /etc/umec/access && continue  # its users must not say where the node's site is
  [ "$link" = lo ] || udhcpc -i "$link" -b -t 10 -T 2 -s /usr/lib/umec/dhcp -S > /dev/null 2>&1 &
done

say "up: $(sed -n 's/^PRETTY_NAME=//p' /etc/os-release)"
# What was measured before, for whoever reads the console; a verifier believes a quote only.
for number in 0 1 2 3 4 5 6 7 8 9 11 12 13 14 15; do
  say "pcr $number $(cat /sys/class/tpm/tpm0/pcr-sha256/$number)"
done
mkdir -p /run/umec
[ ! -e /etc/umec/node.json ] || /usr/lib/umec/update &
[ ! -e /etc/umec/owner.pem ] || /usr/lib/umec/approval /run/umec/approval
if [ -e /etc/umec/node.json ]; then
  umask 077
  mkdir -p /run/umec-agent /var/lib/umec-agent  # root's as long as root writes there: what opens data is the agent's user
  chgrp tss /dev/tpmrm0 && chmod 0660 /dev/tpmrm0
  /usr/lib/umec/data /var/lib/umec-agent /run/umec-agent/ticket
  ticket=/sys/firmware/qemu_fw_cfg/by_name/opt/umec/ticket/raw
  [ ! -e $ticket ] || head -c 8193 $ticket > /run/umec-agent/ticket
  # Only root may read what the firmware measured. The agent never is root: it gets a copy, and the list by its group.
  cat /sys/kernel/security/tpm0/binary_bios_measurements > /run/umec-agent/bootlog
  chmod 0400 /run/umec-agent/*
  chown umec-agent:umec-agent /run/umec-agent/* /run/umec-agent /var/lib/umec-agent
  chgrp umec-agent /sys/kernel/security/ima/binary_runtime_measurements
fi
[ ! -e /etc/umec/host.json ] || /usr/lib/umec/netd &
# With a file for its number: without one, any process that gives itself the program's name counts as started already.
as_agent() {
  rm -f /run/agent.pid
  start-stop-daemon -S -m -p /run/agent.pid -c umec-agent -x "$@"
}
# What binds the node key, where the image has an owner: without an approval there is no key, rather than an unbound one.
owned=; [ ! -e /etc/umec/owner.pem ] || owned="--owner /etc/umec/owner.pem --approval /run/umec/approval"
while true; do
  if [ -e /etc/umec/node.json ]; then
    say "agent: starting"
    as_agent /usr/bin/python3 -- -I -m umec_attest.agent.boot \
      --site /etc/umec/node.json --state /var/lib/umec-agent --boot-log /run/umec-agent/bootlog \
      --ticket /run/umec-agent/ticket --identity /dev/mapper/identity \
      --verdict /run/umec-agent/standing --keeper /run/umec $owned > /dev/console 2>&1
    say "the agent ended with status $?"
  fi
  sleep 5
done
