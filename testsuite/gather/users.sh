# Who can log in and become root, and what the console shows.

fact users <<'X'
awk -F: 'NR == FNR { state[$1] = $2; next }
	{ s = state[$1]; how = "hash"; m = "-"
	  if (!($1 in state)) how = "none"
	  else if (s == "") how = "empty"
	  else if (s ~ /^[!*]/) how = "locked"
	  else if (split(s, p, "$") > 2) m = p[2]
	  print $1, $3, $7, how, m }' /etc/shadow /etc/passwd
X

fact shells <<'X'
grep -E '^/' /etc/shells
X

fact sudo <<'X'
echo "as-user $(sudo -n -u "$user" -- sudo -n -- id -u)"
sudo -n -l -U "$user"
X

fact console-secret 120 <<'X'
# Files that the login hint is shown from or logged to, and every file and list of
# arguments that holds the password: mode, owner, and whether another user can read it.
ask() {
	if sudo -n -u nobody -- cat "$1" >/dev/null 2>&1; then r=readable; else r=refused; fi
	echo "$r $(stat -L -c '%a %U' "$1") $1"
}
ask /etc/passwd
{
	for f in /etc/issue /etc/issue.net /etc/issue.d/* /run/issue /run/issue.d/* /var/log/cloud-init-output.log; do
		[ -f "$f" ] && echo "$f"
	done
	[ -z "$password" ] || printf '%s\n' "$password" >"$tmp/password"
	[ -z "$password" ] || grep -rlsF -f "$tmp/password" /etc /run /var /tmp /root /home /opt /srv /mnt /media /usr/local /dev/shm \
		--exclude-dir=otc-testsuite.* --exclude-dir=dpkg --exclude-dir=apt
	[ -z "$password" ] || grep -lsF -f "$tmp/password" /proc/[0-9]*/cmdline
	rm -f "$tmp/password"
} | sort -u | head -n 200 >"$tmp/hints"
while read -r f; do
	if [ -n "$password" ] && printf '%s\n' "$password" | grep -qsF -f - "$f"; then h=holds; else h=lacks; fi
	echo "$h $(ask "$f")"
done <"$tmp/hints"
X
