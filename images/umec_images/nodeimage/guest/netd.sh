#!/bin/busybox sh
# What runs applications: netd, as root, and the relay that carries the site's requests to it, as the agent's user. netd
# waits for the name of the node, and has nothing in force before the verifier's own word that it stands.
say() { echo "umec-node: $*" > /dev/console; }
umask 022

# /etc/umec/access: the interfaces towards the users; the first has the address.
while read -r interface address; do
  ip link set "$interface" up || say "netd: there is no interface $interface"
  [ -z "$address" ] || ip addr replace "$address" dev "$interface"
done < /etc/umec/access

mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
for controller in cpu memory pids; do
  echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
done
# The root file systems of containers: nowhere else may a program run that is not of this image. Only root enters here, and
# containers have no privileges. Fetched images lie apart, where nothing is executed.
mkdir -p -m 0755 /run/umec-netd /run/umec-images
mkdir -p -m 0700 /run/umec-host
mount -t tmpfs -o nosuid,nodev,mode=0700,size=60% tmpfs /run/umec-host
# The relay keeps an eighth of the memory in images; what comes while it makes room, or is larger, ends at a quarter.
mount -t tmpfs -o nosuid,nodev,noexec,mode=0755,size=25% tmpfs /run/umec-images
chown umec-agent:umec-agent /run/umec-images
eighth=$(awk '/^MemTotal/ { print int($2 / 8192) }' /proc/meminfo)

keep() {
  while true; do
    "$@" > /dev/console 2>&1
    say "netd: $1 ended with status $?"
    sleep 5
  done
}
netd() {
  /usr/bin/python3 -I -m umec_platform.netd --settings /etc/umec/host.json --agent /var/lib/umec-agent \
    --state /run/umec-host --socket /run/umec-netd/netd.sock --allow-uid 900
}
relay() {
  rm -f /run/relay.pid
  start-stop-daemon -S -m -p /run/relay.pid -c umec-agent -x /usr/bin/python3 -- -I -m umec_platform.relay \
    --site "$(cat /etc/umec/site)" --agent /var/lib/umec-agent --netd /run/umec-netd/netd.sock \
    --images /run/umec-images --images-mebibytes "$eighth"
}
keep netd &
keep relay
