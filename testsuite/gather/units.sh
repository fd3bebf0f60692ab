# What systemd runs, and what every process is.

# The units that are loaded, as systemctl show tells them, an empty line between two.
fact units 90 <<'X'
systemctl show --no-pager -p Id,ActiveState,FragmentPath,SourcePath,DropInPaths,UnitFileState,Transient,NeedDaemonReload \
	'*.service' '*.timer' '*.socket' '*.path' '*.scope' '*.automount' '*.swap'
# What packages' scripts enabled, and is not enabled any more.
find /var/lib/systemd/deb-systemd-helper-enabled -mindepth 1 -type f ! -name '*.dsh-also' -printf '%P\n' 2>/dev/null | while read -r link; do
	[ -L "/etc/systemd/system/$link" ] || echo "disabled /etc/systemd/system/$link"
done
:
X

# Every process that has an executable: "PID UID CGROUP WHAT EXECUTABLE" and below it
# "+PID KIND TEXT": a library or program that no package has and that it has mapped, a
# variable of the dynamic linker's, where it works, or its second and third word
# if it is an interpreter. WHAT is "package", "unowned" or "deleted".
fact running 60 <<'X'
cd "$tmp" || exit 1
find /proc -maxdepth 2 -path '/proc/[0-9]*/exe' -printf '%h\t%l\n' 2>/dev/null | sed 's,^/proc/,,' >exe
find /proc -maxdepth 2 -path '/proc/[0-9]*/cwd' -printf '%h\t%U\t%l\n' 2>/dev/null | sed 's,^/proc/,,' >cwd
grep -H '' /proc/[0-9]*/cgroup 2>/dev/null | sed 's,^/proc/\([0-9]*\)/cgroup:[0-9]*:[a-z=]*:,\1\t,' >cgroup
grep -H ' [r-][w-]x[ps] .* /' /proc/[0-9]*/maps 2>/dev/null | sed 's,^/proc/\([0-9]*\)/maps:[^/]*,\1\t,' | sort -u >maps
grep -lzE '^(LD_PRELOAD|LD_AUDIT|LD_LIBRARY_PATH)=' /proc/[0-9]*/environ 2>/dev/null | sed 's,^/proc/\([0-9]*\)/.*,\1,' >ld
grep -aHz -m 3 '' /proc/[0-9]*/cmdline 2>/dev/null | tr '\0\n' '\n ' | sed 's,^/proc/\([0-9]*\)/cmdline:,\1\t,' >words
if [ -d /var/lib/dpkg/info ]; then for f in /var/lib/dpkg/info/*.list; do echo "$f"; done | tr '\n' '\0' | xargs -0 cat >lists; else : >lists; fi
awk -F '\t' -v self="$$" '
function canon(p) { return p ~ /^\/(bin|sbin|lib|lib32|lib64|libx32)\// ? "/usr" p : p }
FILENAME == "lists" { owned[canon($0)] = 1; next }
FILENAME == "cwd" { uid[$1] = $2; cwd[$1] = $3; next }
FILENAME == "cgroup" { if (!($1 in cgroup)) cgroup[$1] = $2; next }
FILENAME == "ld" { ld[$1] = 1; next }
FILENAME == "words" { word[$1, ++words[$1]] = substr($2, 1, 200); next }
FILENAME == "maps" { if ($2 ~ / \(deleted\)$/ || !(canon($2) in owned)) more[$1] = more[$1] "+" $1 " maps " $2 "\n"; next }
$2 != "" {
	e = $2; what = e ~ / \(deleted\)$/ ? "deleted" : canon(e) in owned ? "package" : "unowned"
	print $1, uid[$1] == "" ? "-" : uid[$1], cgroup[$1] == "" ? "-" : cgroup[$1], what, e
	if ($1 in ld) print "+" $1, "variable", "LD_"
	if (cwd[$1] ~ /^\/(tmp|var\/tmp|dev\/shm|run\/user)(\/|$)/) print "+" $1, "works", cwd[$1]
	if (e ~ /\/(sh|dash|bash|busybox|zsh|ksh|mksh|python[0-9.]*|perl[0-9.]*|ruby[0-9.]*|php[0-9.]*|lua[0-9.]*|tclsh[0-9.]*|awk|mawk|gawk|env|nohup|setsid)$/)
		print "+" $1, "script", word[$1, 2], word[$1, 3]
	printf "%s", more[$1]
}' lists cwd cgroup ld words maps exe
X
