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

# Accounts and groups as they stand, without secrets, what the distribution and cloud-init
# would have them be, and the modes of the files. For a password in shadow(5) or
# gshadow(5) stands "locked", "empty" or "hash".
fact accounts <<'X'
sed 's/^/passwd /' /etc/passwd
sed 's/^/group /' /etc/group
for f in shadow gshadow; do
	awk -F: -v f=$f 'BEGIN { OFS = ":" } { $2 = $2 == "" ? "empty" : $2 ~ /^[!*]/ ? "locked" : "hash"; print f " " $0 }' "/etc/$f"
done
stat -c 'mode %a %U %G %n' /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- 2>/dev/null
for f in passwd group; do
	[ -r "/usr/share/base-passwd/$f.master" ] && sed "s/^/master-$f /" "/usr/share/base-passwd/$f.master"
done
awk '$1 ~ /^[ugm]$/ {print "sysusers " $0}' /usr/lib/sysusers.d/*.conf 2>/dev/null
# The groups and users that packages' scripts make by adduser, addgroup and their kin.
awk '{ line = line $0 } sub(/\\$/, "", line) { next } { print line; line = "" }' /var/lib/dpkg/info/*.postinst /var/lib/dpkg/info/*.preinst 2>/dev/null |
	grep -hE '(^|[^a-z])(adduser|addgroup|useradd|groupadd)([^a-z]|$)' |
	tr -c 'A-Za-z0-9_\n-' ' ' | sed 's/^/scripts /' | sort -u
sed -n 's/^\([a-z_]*\):\(.*\)/nss \1 \2/p' /etc/nsswitch.conf
awk '/^ *default_user:/ {on = 1} on && /^ *groups:/ {sub(/.*groups:/, ""); gsub(/[][,]/, " "); print "cloud-groups " $0; on = 0}' /etc/cloud/cloud.cfg /etc/cloud/cloud.cfg.d/*.cfg 2>/dev/null | tail -n 1
X

# All rules of sudo, includes and all, as sudo's own parser gives them.
fact sudo-rules <<'X'
cvtsudoers -f json /etc/sudoers
X

# Every line of the files in which sshd looks for keys of an account, and every
# other file that lets somebody in: "keys USER MODE OWNER FILE TEXT", "file FILE". The
# names of the files are those of the running sshd, for every account.
fact authorized-keys 90 <<'X'
. "$tmp/lib.sh"
set -f
if [ -s "$tmp/sshd.base" ]; then cp "$tmp/sshd.base" "$tmp/keys.sshd" # fact sshd-config has read it
else sshd -T $(sshd_arguments) -C user=no-such-user,host=client.example,addr=192.0.2.1,laddr=192.0.2.2,lport=22 >"$tmp/keys.sshd"; fi || exit 1
names=$(awk '$1 == "authorizedkeysfile" || $1 == "authorizedprincipalsfile" {$1 = ""; print}' "$tmp/keys.sshd" | sed 's/\bnone\b//g')
ca=$(awk '$1 == "trustedusercakeys" && $2 != "none" {print $2}' "$tmp/keys.sshd")
echo "names" $names
awk -F: -v names="$names" '{
	home = $6 ~ /^\// ? $6 : "/"; sub(/\/$/, "", home)
	n = split(names " .ssh/authorized_keys .ssh/authorized_keys2", f, /[ \n]+/)
	for (i = 1; i <= n; i++) {
		if (f[i] == "") continue
		p = f[i]; gsub(/%h/, home, p); gsub(/%u/, $1, p); gsub(/%U/, $3, p); gsub(/%%/, "%", p)
		if (p !~ /^\//) p = home "/" p
		if (!(($1, p) in seen)) print $1, p
		seen[$1, p] = 1
	}
	n = split(".ssh/rc .ssh/environment .ssh/config .shosts .rhosts .k5login", f, " ")
	for (i = 1; i <= n; i++) print "-", home "/" f[i]
}' /etc/passwd | sort -u >"$tmp/keyfiles"
while read -r name f; do
	[ -e "$f" ] || continue
	[ "$name" != - ] || { echo "file $f"; continue; }
	at=$(stat -L -c '%a %U' "$f")
	grep -vE '^[[:space:]]*(#|$)' "$f" | grep -vF -e "$rootkey" | awk -v p="keys $name $at $f " '{print p $0}'
done <"$tmp/keyfiles"
for f in $ca /etc/ssh/sshrc /etc/hosts.equiv /etc/shosts.equiv /etc/ssh/shosts.equiv /etc/ssh/ssh_known_hosts; do [ -e "$f" ] && echo "file $f"; done
:
X
