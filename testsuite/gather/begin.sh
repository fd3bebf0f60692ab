# Reads what the checks need to know of a machine. POSIX sh, run as root with
# this text on stdin. The caller puts these lines before it:
#   user=NAME       the login user
#   forms=TEXT      how the login password that the console showed may be written,
#                   as it is and encoded, one a line; or empty
#   rootkey=LINE    a public key to put into root's authorized_keys
#   limit=BYTES     how much one fact may say
#   patience=SEC    how long one fact may take
#   wanted=" NAME…" the facts that are wanted, each with a space before and after it
#   self=PID        the process that runs this
# Each fact is written as "@@fact NAME STATUS TRUNCATED CENTISECONDS LENGTH",
# a newline, LENGTH bytes and a newline. The caller puts the facts of a suite's own
# probes after this text, and then the last line, "@@end".
# Not /usr/local: no package puts a program there that this script means.
LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH user forms rootkey self
umask 077
tmp=$(mktemp -d /run/otc-testsuite.XXXXXX) || exit 9
trap 'rm -rf "$tmp"' EXIT
trap 'exit 9' HUP INT TERM PIPE
export tmp

uptime_cs() { read -r up _ </proc/uptime; now=${up%.*}${up#*.}; }

# fact NAME [PATIENCE [BYTES]] <<body: runs the body and reports it. What the body
# says counts only up to a mark that is written after it, so that a full file system
# is status 125 and not a fact that is empty. With BYTES no file that the body
# writes, its output among them, may be longer: who goes on is killed, with status 153.
# An emulated machine takes most of its time for starting programs: a fact starts four,
# and those of its body.
fact() {
	case "$wanted" in *" $1 "*) ;; *) cat >/dev/null; return ;; esac
	uptime_cs
	start=$now
	bound=${3:-$limit}
	(
		[ -z "${3-}" ] || { ulimit -f $(($3 / 512 + 8)); ulimit -c 0; } 2>/dev/null
		exec timeout -k 5 "${2:-$patience}" sh /dev/fd/3 3<&0 >"$tmp/out" 2>"$tmp/err" </dev/null
	)
	status=$?
	cut=0
	[ "$status" = 0 ] || { echo "--- stderr"; tail -c 2000 "$tmp/err"; } >>"$tmp/out"
	mark=10
	{ echo "@@written" >>"$tmp/out"; } 2>/dev/null || { status=125; mark=0; }
	len=$(stat -c %s "$tmp/out")
	len=$((len - mark))
	[ "$len" -le "$bound" ] || { cut=1; len=$bound; }
	uptime_cs
	echo "@@fact $1 $status $cut $((now - start)) $len"
	head -c "$len" "$tmp/out"
	echo
}

# files PATTERN... shows each file that exists below a line naming it.
cat >"$tmp/lib.sh" <<'X'
files() { for f in "$@"; do [ -f "$f" ] || continue; echo "### $f"; cat "$f"; echo; done; }
X
