# sshd's configuration, as the running one has it.

# lib.sh: the numbers of the processes whose program or name is sshd.
cat >>"$tmp/lib.sh" <<'X'
sshd_numbers() {
	{
		ls -l /proc/[0-9]*/exe | sed -n 's,.* /proc/\([0-9]*\)/exe -> .*/sshd[^/]*$,\1,p'
		grep -ls '^sshd' /proc/[0-9]*/comm | tr -cd '0-9\n'
	} 2>/dev/null | sort -un
}
X

# What each sshd is and was started with. Its title has the arguments of one that
# listens between "sshd: " and " [listener]"; before OpenSSH 8.2 it has no title.
fact sshd-processes <<'X'
. "$tmp/lib.sh"
for p in $(sshd_numbers); do
	exe=$(readlink "/proc/$p/exe") && echo "$p $(awk '$1 == "PPid:" {print $2}' "/proc/$p/status") $exe|$(tr '\0\n' '  ' <"/proc/$p/cmdline")"
done 2>/dev/null
:
X

# lib.sh: the arguments of each sshd that listens, a line for each, or an empty line
# where systemd does. They are given to a command of root's: only those of a process
# that is root's count, whatever a user's process calls itself, and no log file is
# written for them.
cat >>"$tmp/lib.sh" <<'X'
sshd_arguments() {
	for d in $(sshd_numbers | sed 's,^,/proc/,'); do
		case "$(readlink "$d/exe")" in */sshd*) ;; *) continue ;; esac
		[ "$(awk '$1 == "Uid:" {print $2, $3, $4, $5}' "$d/status")" = "0 0 0 0" ] || continue
		title=$(tr '\0\n' '  ' <"$d/cmdline") || continue
		title=${title#sshd: }
		case "$title" in
		/*/sshd*"[listener]"*) title=${title%%"[listener]"*} ;;
		/*/sshd" "*|/*/sshd) ;;
		*) continue ;;
		esac
		echo "${title#*/sshd}" | sed 's/ -E *[^ ]*//g; s/^ *//; s/ *$//'
	done 2>/dev/null | sort -u | grep '' || echo
}
X

# The configuration that the running sshd has for a stranger: that of its arguments,
# not of the default file. Without all of the connection a Match block is an error.
fact sshd-config <<'X'
. "$tmp/lib.sh"
sshd_arguments >"$tmp/sshd.all"
head -n 1 "$tmp/sshd.all" >"$tmp/sshd.arguments"
set -f
sshd -T $(cat "$tmp/sshd.arguments") -C user=no-such-user,host=client.example,addr=192.0.2.1,laddr=192.0.2.2,lport=22 \
	>"$tmp/sshd.base" || exit 1
cat "$tmp/sshd.base"
X

# The criteria of Match blocks, as sshd's own parser reads them, includes and all.
fact sshd-match <<'X'
set -f
sshd -T -ddd $(cat "$tmp/sshd.arguments") 2>"$tmp/sshd.debug" >/dev/null # which changes LogLevel
sed -n "s/^debug3: checking [a-z]* for 'Match \(.*\)'.*/\1/p" "$tmp/sshd.debug"
grep -q '^debug2: parse_server_config' "$tmp/sshd.debug"
X

# What else holds. Of each further sshd that listens, for a stranger. Where there are
# Match blocks, for each of these: for root, the login user, a stranger, everybody with
# a shell and whom the block names, from both families, far and near, and from and to
# what the block names. Without them nothing else can hold.
fact sshd-views 300 <<'X'
set -f
[ -s "$tmp/sshd.base" ] && grep -q '^debug2: parse_server_config' "$tmp/sshd.debug" || exit 1
view() { # its name, then sshd's arguments
	echo "### $1"
	shift
	sshd -T "$@" 2>"$tmp/view.err" || { cat "$tmp/view.err" >&2; exit 1; }
}
sed 1d "$tmp/sshd.all" >"$tmp/sshd.others"
sed -n "s/^debug3: checking [a-z]* for 'Match \(.*\)'.*/\1/p" "$tmp/sshd.debug" | sort -u >"$tmp/sshd.blocks"
[ -s "$tmp/sshd.blocks" ] || [ -s "$tmp/sshd.others" ] || { echo "none needed"; exit 0; }
while read -r arguments; do
	view "sshd $arguments" $arguments -C user=no-such-user,host=client.example,addr=192.0.2.1,laddr=192.0.2.2,lport=22
done <"$tmp/sshd.others" >"$tmp/views"
named() { # the values of one criterion of $block, as something that it would match
	printf '%s\n' "$block" | tr '= \t' '\n\n\n' | sed '/^$/d' | awk -v want="$1" '
		value == want { n = split($0, v, ","); for (i = 1; i <= n; i++) print v[i] }
		{ value = value == "" ? tolower($0) : ""; if (value == "all" || value == "final" || value == "canonical") value = "" }' |
		tr -d '"' | tr '*?' 'xx' | sed 's,/.*,,' | grep -E '^!?[A-Za-z0-9._:-]+$'
}
# either COMMON NAMED: what a block names, and what it does not where that is what it means.
either() {
	case "$2" in ""|*!*) printf '%s\n' "$1" "$2" | tr -d '!' ;; *) printf '%s\n' "$2" ;; esac
}
# What no block names decides nothing: one value is enough of it.
names() { grep -qiE "(^|[[:space:]])($1)[=[:space:]]" "$tmp/sshd.blocks"; }
everybody=no-such-user
names 'user|group' && everybody="root $user no-such-user $(awk -F: '$7 !~ /(nologin|false|sync)$/ {print $1}' /etc/passwd)"
everywhere=192.0.2.1
names address && everywhere="192.0.2.1 127.0.0.1 2001:db8::1 ::1"
while read -r block; do
	users=$(named user)
	for group in $(named group | tr -d '!'); do
		gid=$(getent group "$group" | awk -F: '{print $3}')
		users="$users $(getent group "$group" | awk -F: '{gsub(",", " ", $4); print $4}')
			$(awk -F: -v g="$gid" '$4 == g {print $1}' /etc/passwd)"
	done
	for u in $(either "$everybody" "$users"); do
		for a in $(either "$everywhere" "$(named address)"); do
			for l in $(either 192.0.2.2 "$(named localaddress)"); do
				for p in $(either 22 "$(named localport)"); do
					for h in $(either client.example "$(named host)"); do
						echo "user=$u,host=$h,addr=$a,laddr=$l,lport=$p"
					done
				done
			done
		done
	done
done <"$tmp/sshd.blocks" | sort -u >"$tmp/specs"
[ "$(wc -l <"$tmp/specs")" -le 400 ] || { echo "the Match blocks name too many to look at each" >&2; exit 1; }
arguments=$(cat "$tmp/sshd.arguments")
while read -r spec; do
	view "$spec" $arguments -C "$spec"
done <"$tmp/specs" >>"$tmp/views"
# What differs: one program for all views, which may be hundreds.
awk 'NR == FNR { base[$0]; next } /^### / || !($0 in base)' "$tmp/sshd.base" "$tmp/views"
X

fact root-key <<'X'
# Remembers what was there, so that the caller can have it put back.
home=$(awk -F: '$1 == "root" {print $6}' /etc/passwd)
[ -n "$home" ] && [ ! -e /run/otc-testsuite.root ] && mkdir /run/otc-testsuite.root || exit 1
[ ! -d "$home/.ssh" ] && { mkdir "$home/.ssh"; touch /run/otc-testsuite.root/nodir; }
[ -f "$home/.ssh/authorized_keys" ] && cp -p "$home/.ssh/authorized_keys" /run/otc-testsuite.root/saved
echo "$rootkey" >>"$home/.ssh/authorized_keys" || exit 1
ssh-keygen -lf "$home/.ssh/authorized_keys" | tail -n 1
. "$tmp/lib.sh"
arguments=$(sshd_arguments | head -n 1)
set -f
sshd -T $arguments -C user=root,host=client.example,addr=192.0.2.1,laddr=192.0.2.2,lport=22 | grep -i '^authorizedkeysfile '
X
