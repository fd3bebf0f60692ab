# The kernel, its settings and what it was started with.

fact sysctl <<'X'
cd /proc/sys/net || exit 1
grep -s '' ipv4/conf/*/accept_redirects ipv4/conf/*/secure_redirects ipv4/conf/*/send_redirects \
	ipv4/conf/*/accept_source_route ipv4/conf/*/rp_filter ipv4/ip_forward ipv4/tcp_syncookies \
	ipv4/icmp_echo_ignore_broadcasts ipv4/icmp_ignore_bogus_error_responses \
	ipv6/conf/*/accept_redirects ipv6/conf/*/accept_source_route ipv6/conf/all/forwarding /dev/null |
	sed 's,^\([^:]*\):,net/\1 ,'
X

fact boot <<'X'
. "$tmp/lib.sh"
echo "### /proc/cmdline"
cat /proc/cmdline
files /etc/fstab
X

fact apparmor <<'X'
echo "enabled $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null || echo absent)"
echo "lsm $(cat /sys/kernel/security/lsm 2>/dev/null || echo unknown)"
awk '{ n++ } !/ \(enforce\)$/ { print "lenient " $0 } END { print "profiles " n + 0 }' /sys/kernel/security/apparmor/profiles 2>/dev/null ||
	echo "profiles 0"
X
