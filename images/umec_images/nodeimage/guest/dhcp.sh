#!/bin/busybox sh
# What a DHCP server says, put into effect (called by udhcpc).
case $1 in
  deconfig) ip addr flush dev "$interface"; ip link set "$interface" up ;;
  bound | renew)
    ip addr replace "$ip/$mask" dev "$interface"
    for each in $router; do ip route replace default via "$each" dev "$interface"; done
    for each in $dns; do echo "nameserver $each"; done > /run/resolv.conf
    echo "umec-node: network $ip on $interface" > /dev/console
    ;;
esac
