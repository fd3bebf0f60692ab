# Where the console's password stands, and who can read it there. $forms are the
# ways to write it, one a line.

fact console-secret 240 <<'X'
# Files that the login hint is shown from or logged to, and every file that
# holds the password: mode, owner, and whether another user can read it.
ask() {
	if sudo -n -u nobody -- cat "$1" >/dev/null 2>&1; then r=readable; else r=refused; fi
	echo "$r $(stat -L -c '%a %U:%G' "$1") $1"
}
ask /etc/passwd
printf '%s\n' "$forms" >"$tmp/forms"
# Package files are looked into where something has changed them since the first boot.
{
	for f in /etc/issue /etc/issue.net /etc/issue.d/* /run/issue /run/issue.d/* /var/log/cloud-init-output.log; do
		[ -f "$f" ] && echo "$f"
	done
	[ -z "$forms" ] || find / \( -fstype proc -o -fstype sysfs -o -fstype cgroup -o -fstype cgroup2 -o -fstype debugfs -o -fstype tracefs \
		-o -fstype securityfs -o -path '/run/otc-testsuite.*' \) -prune -o -type f -size -65536k \
		\( ! -path '/usr/*' ! -path '/boot/*' ! -path '/var/lib/dpkg/info/*' -o -path '/usr/local/*' -o -cnewer /etc/machine-id -o -cmin -120 \) \
		-print0 2>/dev/null | xargs -0 -r grep -lsaF -f "$tmp/forms" -- || [ $? = 123 ]
} | sort -u | head -n 200 >"$tmp/hints"
while read -r f; do
	if [ -n "$forms" ] && grep -qsaF -f "$tmp/forms" -- "$f"; then h=holds; else h=lacks; fi
	echo "$h $(ask "$f")"
done <"$tmp/hints"
X

fact console-leaks 240 <<'X'
# What is no file and holds the password: processes, the journal's fields, what
# systemd tells everybody of its units, and what the kernel does.
[ -n "$forms" ] || exit 0
printf '%s\n' "$forms" >"$tmp/forms"
set -- /proc/[0-9]*
echo "searched $# processes"
# Those below $self are this script's own, which has the password from its caller;
# but grep, which is gone when they are looked at, does not have it.
env -u forms grep -lsaF -f "$tmp/forms" /proc/[0-9]*/cmdline /proc/[0-9]*/comm /proc/[0-9]*/environ >"$tmp/holders"
head -n 200 "$tmp/holders" | while IFS=/ read -r _ _ pid what; do
	up=$pid
	while [ "$up" -gt 1 ] && [ "$up" != "$self" ]; do
		up=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$up/status" 2>/dev/null) && [ -n "$up" ] || up=0
	done
	[ "$up" = "$self" ] || echo "$what $(stat -c %U "/proc/$pid" 2>/dev/null || echo gone) $pid $(sed 's/[^[:alnum:]._-]/?/g;q' "/proc/$pid/comm" 2>/dev/null || echo -)"
done
# count NAME: how many lines of the input hold it.
count() { echo "$1 $(grep -caF -f "$tmp/forms")"; }
if command -v journalctl >/dev/null; then journalctl --no-pager --quiet --all --output=export | count journal; fi
if command -v systemctl >/dev/null; then { systemctl show-environment; systemctl show --property=Id,Description,StatusText,Environment,ExecStart,ExecStartPre,ExecStartPost,ExecReload,ExecStop '*'; } | count units; fi
{ cat /proc/cmdline /proc/mounts /proc/net/unix /proc/sys/kernel/hostname /sys/class/net/*/ifalias; dmesg; } 2>/dev/null | count kernel
X
