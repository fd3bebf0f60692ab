# What runs.

# The files that chronyd reads, by its own arguments and its own directives, then
# those of the others.
fact ntp-config <<'X'
show() { for f in "$@"; do [ ! -f "$f" ] || { echo "### $f"; cat "$f"; echo; }; done; }
pid=$(pgrep -o -x chronyd)
conf=$([ -z "$pid" ] || tr '\0' '\n' <"/proc/$pid/cmdline" | sed -n '/^-f$/{n;p;}; s/^-f\(..*\)/\1/p' | tail -n 1)
[ -n "$conf" ] || for conf in /etc/chrony/chrony.conf /etc/chrony.conf; do [ ! -f "$conf" ] || break; done
{
	show "$conf"
	[ ! -f "$conf" ] || awk 'tolower($1) ~ /^(include|confdir|sourcedir)$/ { for (i = 2; i <= NF; i++) print tolower($1), $i }' "$conf" |
		while read -r kind path; do
			case $kind in
			include) show $path ;;
			confdir) show "$path"/*.conf ;;
			sourcedir) show "$path"/*.sources ;;
			esac
		done
	show /etc/ntp.conf /etc/ntpsec/ntp.conf /etc/systemd/timesyncd.conf /etc/systemd/timesyncd.conf.d/*.conf \
		/run/systemd/timesyncd.conf.d/*.conf /usr/lib/systemd/timesyncd.conf.d/*.conf
} | grep -vE '^[[:space:]]*([#!;%]([^#]|$)|$)' || :
X

# What the time daemon and rngd are, and what they use.
fact time <<'X'
for name in chronyd ntpd systemd-timesyn openntpd rngd; do
	for pid in $(pgrep -x "$name"); do
		echo "daemon $name $pid $(readlink "/proc/$pid/exe") $(cat "/proc/$pid/attr/current" 2>/dev/null | tr -d '\0' | tr ' ' '_')"
		echo "arguments $name $(tr '\0' ' ' <"/proc/$pid/cmdline")"
	done
done
if pgrep -x chronyd >/dev/null; then
	chronyc -N -c sources | awk -F, '{ print "source", $3 }'
	echo "activity $(chronyc -n activity | awk '/^[0-9]+ source/ { n += $1 } END { print n + 0 }')"
fi
[ ! -x /usr/bin/timedatectl ] || ! pgrep -x systemd-timesyn >/dev/null || timedatectl show-timesync -p ServerName -p LinkNTPServers | sed 's/^/timesyncd /'
for f in /run/chrony-dhcp/*.sources; do
	[ ! -f "$f" ] || sed -n 's/^server /dhcp-ntp /p' "$f"
done
pid=$(pgrep -o -x rngd)
[ -z "$pid" ] || ls -l "/proc/$pid/fd" | awk '/-> \/dev\// { print "rngd-opens", $NF }'
echo "hwrng $(cat /sys/class/misc/hw_random/rng_current 2>/dev/null || echo absent)"
echo "entropy $(cat /proc/sys/kernel/random/entropy_avail)"
stat -c 'seed %a %U %F' /var/lib/systemd/random-seed 2>/dev/null
systemctl show --no-pager -p Id,LoadState,FragmentPath,DropInPaths chrony chronyd ntp ntpd ntpsec systemd-timesyncd rngd rng-tools rng-tools-debian rng-tools5 | awk -F= '
	function flush() { if (loaded) { print "unit", id, path; if (dropins != "") print "dropins", id, dropins } id = path = dropins = ""; loaded = 0 }
	/^$/ { flush() } /^Id=/ { id = $2 } /^LoadState=loaded$/ { loaded = 1 } /^FragmentPath=/ { path = $2 } /^DropInPaths=/ { dropins = $2 }
	END { flush() }'
echo "zone $(readlink -f /etc/localtime || echo absent)"
echo "rtc $(awk 'NR == 3' /etc/adjtime 2>/dev/null || :)"
echo "journal $([ -d "/var/log/journal/$(cat /etc/machine-id)" ] && echo persistent || echo volatile)"
echo end
X

# How names become addresses.
fact resolver <<'X'
for f in /etc/hosts /etc/resolv.conf /etc/host.conf /etc/gai.conf /etc/nsswitch.conf /etc/systemd/resolved.conf \
	/etc/systemd/resolved.conf.d/*.conf /run/systemd/resolved.conf.d/*.conf /usr/lib/systemd/resolved.conf.d/*.conf; do
	[ -f "$f" ] || continue
	echo "### $f"
	grep -vE '^[[:space:]]*([#;]|$)' "$f"
done
echo "### link"
readlink /etc/resolv.conf
echo "### uplinks"
[ ! -e /run/systemd/resolve/resolv.conf ] || { resolvectl --no-pager dns || exit 1; resolvectl --no-pager domain || exit 1; }
echo "### leases"
sed -n 's/^DNS=//p' /run/systemd/netif/leases/* 2>/dev/null
sed -n 's/.*domain-name-servers \(.*\);/\1/p' /var/lib/dhcp/*.leases /var/lib/dhclient/*.leases 2>/dev/null
# Of networkd's servers, those that routers and DHCP gave, as bytes: no lease has the routers'.
echo "### announced"
[ ! -e /run/systemd/netif/state ] || networkctl --no-pager --json=short list 2>/dev/null |
	grep -o '"Address":\[[0-9,]*\],"ConfigSource":"\(NDisc\|DHCPv[46]\)"' | sed 's/.*\[\(.*\)\].*/\1/' | sort -u
echo "### end"
X

fact services <<'X'
systemctl show --no-pager -p Id,LoadState,ActiveState,SubState,UnitFileState,MainPID \
	ssh.service ssh.socket sshd.service chrony.service chronyd.service ntp.service ntpd.service ntpsec.service \
	systemd-timesyncd.service rngd.service rng-tools.service rng-tools-debian.service rng-tools5.service \
	uvp-monitor.service apparmor.service apt-daily.timer apt-daily-upgrade.timer \
	unattended-upgrades.service packagekit.service dnf-automatic.timer yum-cron.service \
	serial-getty@ttyS0.service systemd-networkd.service networking.service NetworkManager.service
X

fact failed-units <<'X'
systemctl list-units --all --state=failed,error,bad-setting --plain --no-legend --no-pager || exit 1
systemctl list-jobs --no-legend --no-pager | sed 's/^ */job /' || exit 1
echo "manager $(systemctl is-system-running)"
X

fact processes <<'X'
for d in /proc/[0-9]*; do
	read -r c <"$d/comm" && echo "${d#/proc/} $c"
done 2>/dev/null
:
X
