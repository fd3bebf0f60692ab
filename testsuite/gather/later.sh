# What is only there later: read when everything else was, after the network was
# restarted, on a machine that is thrown away.

fact sockets-later 120 <<'X'
. "$tmp/lib.sh"
timeout 60 systemctl try-restart systemd-networkd.service networking.service NetworkManager.service \
	wicked.service network.service 2>/dev/null
sleep 5
sockets
X
