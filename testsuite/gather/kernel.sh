# The kernel, its settings and what it was started with.

# Left out: what counts, what is random and what is secret. A setting of several
# lines has as many lines here.
fact sysctl 60 <<'X'
grep -rsa '' /proc/sys/ | awk '
	/^\/proc\/sys\/fs\/(binfmt_misc|quota)\// || /^\/proc\/sys\/dev\/cdrom\/info:/ { next }
	/^\/proc\/sys\/fs\/(dentry-state|file-nr|inode-nr|inode-state|aio-nr):/ { next }
	/^\/proc\/sys\/kernel\/(ns_last_pid|pty\/nr|random\/(uuid|entropy_avail)):/ { next }
	/\/(stable_secret|tcp_fastopen_key|netdev_rss_key):/ { next }
	{ name = $0; sub(/:.*/, "", name); value = substr($0, length(name) + 2); print substr(name, 11) " " value }'
X

# In the order of names, and for each name the first of the directories that has it:
# what systemd-sysctl reads. Then what networkd sets by itself.
fact sysctl-next <<'X'
. "$tmp/lib.sh"
for d in /etc /run /usr/local/lib /usr/lib /lib; do
	for f in "$d"/sysctl.d/*.conf; do [ ! -e "$f" ] && [ ! -L "$f" ] || echo "${f##*/} $f"; done
done | awk '!seen[$1]++' | sort -s -k1,1 | while read -r _ f; do
	echo "### $f"
	[ "$(readlink -f "$f")" = /dev/null ] || grep -v '^[[:space:]]*\([#;].*\)\{0,1\}$' "$f" || [ $? = 1 ] || exit 1
done
for f in /etc/systemd/networkd.conf /etc/systemd/networkd.conf.d/*.conf /run/systemd/networkd.conf.d/*.conf \
	/etc/systemd/network/*.network /etc/systemd/network/*.network.d/*.conf /run/systemd/network/*.network \
	/etc/NetworkManager/system-connections/* /etc/NetworkManager/conf.d/*; do
	[ -f "$f" ] || continue
	grep -HiE '^[[:space:]]*(IP(v4|v6)?Forward|IPMasquerade|IPv4(ReversePathFilter|AcceptLocal|RouteLocalnet|ProxyARP)|IPv6(ProxyNDP|AcceptRA)|method=shared)' "$f" | sed 's/^\([^:]*\):/### network \1\n/'
done
echo "### end"
X

fact boot <<'X'
. "$tmp/lib.sh"
echo "### /proc/cmdline"
cat /proc/cmdline
files /etc/fstab
X

# What the next boot is started with, whatever the boot loader.
fact boot-next <<'X'
for f in /boot/grub/grub.cfg /boot/grub/custom.cfg /boot/grub/grubenv /boot/grub2/grub.cfg /boot/grub2/custom.cfg \
	/boot/grub2/grubenv /boot/loader/entries/*.conf /boot/efi/EFI/*/grub.cfg /boot/efi/EFI/*/grubenv /boot/extlinux/extlinux.conf \
	/etc/default/grub /etc/default/grub.d/*.cfg /etc/kernel/cmdline /etc/kernel/cmdline.d/*; do
	[ -f "$f" ] || continue
	echo "### $f"
	grep -vE '^[[:space:]]*(#|$)' "$f"
done
echo "### end"
X

fact kernel <<'X'
echo "release $(uname -r)"
for f in /boot/vmlinuz-*; do [ ! -f "$f" ] || echo "installed ${f#/boot/vmlinuz-}"; done
for f in /sys/kernel/kexec_loaded /sys/kernel/kexec_crash_loaded /sys/kernel/kexec_crash_size /proc/sys/kernel/tainted \
	/sys/kernel/security/lockdown /sys/kernel/security/lsm /proc/sys/kernel/modprobe; do
	echo "${f##*/} $(cat "$f" 2>/dev/null || echo absent)"
done
grep -s '' /sys/devices/system/cpu/vulnerabilities/* | sed 's,^/sys/devices/system/cpu/vulnerabilities/\([^:]*\):,vulnerability \1 ,'
sed -n 's/^bugs[[:space:]]*:/bugs/p' /proc/cpuinfo | head -1
grep -qw ssbd /proc/cpuinfo && echo "ssbd yes" || echo "ssbd no"
awk 'NR > 1 { print "swap", $1, $2 }' /proc/swaps
echo "end"
X

# Each loaded module with its taint and its file: whether that is as the kernel's
# package has it.
fact modules-loaded 60 <<'X'
release=$(uname -r)
awk -v dir="/lib/modules/$release/" '
	FILENAME != "/proc/modules" {
		file = $1; sub(/:$/, "", file); name = file; sub(/.*\//, "", name); sub(/\.ko.*/, "", name); gsub(/-/, "_", name)
		path[name] = dir file; next
	}
	{ taint = $NF ~ /^\(/ ? $NF : "-"; print $1, taint, ($1 in path ? path[$1] : "-") }
' "/lib/modules/$release/modules.dep" /proc/modules >"$tmp/loaded" || exit 1
if [ -d /var/lib/dpkg/info ]; then
	awk '$3 != "-" {print $3}' "$tmp/loaded" | xargs -r md5sum >"$tmp/sums" || exit 1
	cat /var/lib/dpkg/info/linux-*"$release"*.md5sums >"$tmp/packaged" || exit 1
	awk 'FILENAME ~ /packaged$/ { sum["/" $2] = $1; next } FILENAME ~ /sums$/ { is[$2] = $1; next }
		{ file = $3; usr = "/usr" file; want = file in sum ? sum[file] : sum[usr]
		  print "module", $1, $2, (want == "" ? "foreign" : want == is[file] ? "packaged" : "changed"), file }' "$tmp/packaged" "$tmp/sums" "$tmp/loaded"
else
	awk '{ print "module", $1, $2, "unknown", $3 }' "$tmp/loaded"
fi
echo "end"
X

fact mounts <<'X'
cat /proc/1/mountinfo && echo end
X

# The files of settings that are not the unchanged content of a package, without
# comments.
fact settings 60 <<'X'
set --
for f in /etc/modules /etc/modules-load.d/* /run/modules-load.d/* /usr/lib/modules-load.d/* /etc/modprobe.d/* /run/modprobe.d/* \
	/lib/modprobe.d/* /usr/local/lib/modprobe.d/* /usr/local/lib/modules-load.d/* /etc/depmod.d/* \
	/etc/systemd/*.conf /etc/systemd/*.conf.d/* /run/systemd/*.conf.d/* /usr/lib/systemd/*.conf.d/* /usr/local/lib/systemd/*.conf.d/* \
	/etc/security/limits.conf /etc/security/limits.d/* /etc/rsyslog.conf /etc/rsyslog.d/* /etc/syslog-ng/* /etc/binfmt.d/* /run/binfmt.d/* \
	/etc/initramfs-tools/modules /etc/initramfs-tools/*.conf /etc/initramfs-tools/conf.d/* /etc/dracut.conf.d/* \
	/etc/apparmor/* /etc/apparmor.d/* /etc/apparmor.d/local/* /etc/apparmor.d/disable/* /etc/apparmor.d/force-complain/* \
	/etc/default/chrony /etc/default/rng* /etc/gai.conf /etc/host.conf /etc/default/kexec /etc/default/kdump-tools; do
	[ ! -f "$f" ] || set -- "$@" "$f"
done
[ -d /var/lib/dpkg/info ] || { echo "no dpkg"; exit 0; }
{ cat /var/lib/dpkg/info/*.md5sums | sed 's,  ,  /,'
  awk '/^Conffiles:/ { c = 1; next } /^ / { if (c) print $2 "  " $1; next } { c = 0 }' /var/lib/dpkg/status; } >"$tmp/packaged" || exit 1
md5sum -- "$@" >"$tmp/sums" || exit 1
awk 'FILENAME ~ /packaged$/ { ok[$1 " " $2] = 1; next } { usr = $2; sub(/^\/lib\//, "/usr/lib/", usr) } !($1 " " $2 in ok) && !($1 " " usr in ok) { print $2 }' \
	"$tmp/packaged" "$tmp/sums" | while read -r f; do
	echo "### $f"
	grep -vE '^[[:space:]]*([#;]|$)' "$f"
done
echo "### end"
X

fact apparmor 60 <<'X'
echo "enabled $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null || echo absent)"
echo "lsm $(cat /sys/kernel/security/lsm 2>/dev/null || echo unknown)"
echo "profiles $(wc -l </sys/kernel/security/apparmor/profiles 2>/dev/null || echo 0)"
sed 's/^/loaded /' /sys/kernel/security/apparmor/profiles 2>/dev/null
for f in /etc/apparmor.d/disable/* /etc/apparmor.d/force-complain/*; do [ ! -e "$f" ] && [ ! -L "$f" ] || echo "relaxed $f"; done
[ ! -x /sbin/apparmor_parser ] || apparmor_parser -N /etc/apparmor.d | sed 's/^/file /'
X
