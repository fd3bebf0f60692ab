# Sockets, addresses and names.

fact sockets <<'X'
command -v ss >/dev/null || { echo "ss is not installed" >&2; exit 1; }
ss -H -n -l -t -p | sed 's/^/tcp /' && ss -H -n -l -u -p | sed 's/^/udp /'
X

fact hostname <<'X'
echo "kernel $(cat /proc/sys/kernel/hostname)"
echo "file $(cat /etc/hostname)"
echo "resolves $(timeout 10 getent ahosts "$(cat /proc/sys/kernel/hostname)" | awk 'NR == 1 {print $1}')"
X

fact network <<'X'
ip -o addr show scope global
ip route show default
ls -1 /etc/netplan/*cloud-init* /etc/network/interfaces.d/*cloud-init* /etc/systemd/network/*cloud-init* \
	/run/systemd/network/*netplan* /etc/sysconfig/network-scripts/ifcfg-* \
	/etc/NetworkManager/system-connections/*cloud-init* 2>/dev/null | sed 's/^/rendered /'
:
X
