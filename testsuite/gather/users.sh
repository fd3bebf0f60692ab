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
