# What is in the file system, against what the package manager knows of it.

# Every file that is not as its package has it, as "KIND TYPE MODE USER GROUP MD5 SHA256 NOTE PATH TARGET",
# tabs between them and "-" where there is nothing. KIND is "unowned" (no package has
# it), "changed", "missing" or "special" (another mode or owner than most have). NOTE
# says of what package's file it is a copy, or to what a link leads. One awk reads the
# database, one find the disk.
fact files 240 <<'X'
[ -s /var/lib/dpkg/status ] || { echo "no dpkg"; exit 0; }
cd "$tmp" || exit 1
fields='%y\t%m\t%u\t%g\t%s\t%p\t%l\n'
mounts=$(awk '$3 ~ /^(ext[234]|xfs|btrfs|f2fs|vfat|tmpfs|zfs|overlay)$/ && $2 !~ /^\/(proc|sys|dev\/pts|run\/user|run\/credentials|var\/lib\/(docker|containers))(\/|$)/ {print $2}' /proc/mounts | sort -u)
find $mounts -xdev -path "$tmp" -prune -o \( -name '*[[:cntrl:]]*' -o -lname '*[[:cntrl:]]*' \) -print0 | head -c 4000 | tr '\0' '\n' | tr -c '[:print:]\n' '?' >odd
find $mounts -xdev -path "$tmp" -prune -o \( -name '*[[:cntrl:]]*' -o -lname '*[[:cntrl:]]*' \) -prune -o -printf "$fields" >all || [ -s all ] || exit 1
getcap -r $mounts 2>/dev/null | sed 's/\(.*\) \(cap_[^ ]*\)$/\2 \1/' >caps
command -v getcap >/dev/null || { echo "getcap is not installed" >&2; exit 1; }
for f in /var/lib/dpkg/info/*.list; do echo "$f"; done | tr '\n' '\0' | xargs -0 cat >lists
cat /var/lib/dpkg/info/*.md5sums >sums
awk '/^Conffiles:/ {on = 1; next} /^[^ ]/ {on = 0} on && NF >= 2 && $NF != "obsolete" {print $2 "  " substr($1, 2)}' /var/lib/dpkg/status >>sums
# Only a diversion that its package asks for counts.
while read -r from && read -r to && read -r by; do
	grep -qsF -e "$from" "/var/lib/dpkg/info/$by".* && printf '%s\t%s\n' "$from" "$to"
done </var/lib/dpkg/diversions >diverted
awk -F '\t' -v special="/etc/sudoers /etc/sudoers.d /etc/sudoers.d/README /root /etc/ssl/private" '
function canon(p) { return p ~ /^\/(bin|sbin|lib|lib32|lib64|libx32)(\/|$)/ && merged[substr(p, 2, index(substr(p, 2) "/", "/") - 1)] ? "/usr" p : p }
function resolve(p, t, n, i, part, out, k) {
	if (t !~ /^\//) { sub(/\/[^\/]*$/, "", p); t = p "/" t }
	n = split(t, part, "/"); k = 0
	for (i = 1; i <= n; i++) {
		if (part[i] == "" || part[i] == ".") continue
		if (part[i] == "..") { if (k > 0) k--; continue }
		out[++k] = part[i]
	}
	t = ""
	for (i = 1; i <= k; i++) t = t "/" out[i]
	return canon(t)
}
BEGIN {
	n = split("bin sbin lib lib32 lib64 libx32", m, " ")
	while ((getline line <"all") > 0) { split(line, f, "\t"); if (f[6] ~ /^\/[a-z0-9]*$/ && f[1] == "l" && f[7] == "usr" f[6]) merged[substr(f[6], 2)] = 1 }
	close("all")
	while ((getline line <"diverted") > 0) { split(line, f, "\t"); away[f[1]] = 1; owned[canon(f[2])] = 1 }
	while ((getline line <"lists") > 0) owned[canon(line)] = 1
	while ((getline line <"sums") > 0) { p = substr(line, 35); if (p !~ /^\//) p = "/" p; if (!(p in away)) { p = canon(p); md5[p] = substr(line, 1, 32) } }
	while ((getline line <"caps") > 0) { i = index(line, " "); cap[substr(line, i + 1)] = substr(line, 1, i - 1) }
	while ((getline line <"/proc/modules") > 0) { split(line, f, " "); loaded[f[1]] = 1 }
	n = split(special, f, " "); for (i = 1; i <= n; i++) asked[f[i]] = 1
}
{
	type = $1; mode = $2; p = $6; seen[p] = 1; note = "-"
	who = mode "\t" $3 "\t" $4
	root = $3 == "root" && $4 == "root"
	while (length(mode) < 4) mode = "0" mode
	usual = type == "l" || root && (type == "f" && (mode == "0644" || mode == "0755" || mode == "0444" || mode == "0555") || type == "d" && mode == "0755")
	if (p in cap) { usual = 0; note = "capability=" cap[p] }
	if (p in owned) {
		if ((p in md5) && type != "f") { print "changed", type, who, "-", "-", note, p, $7; next }
		if ((p in md5) && p !~ /^\/usr\/share\/(doc|man|locale|info)\//) {
			name = p; hash = 1
			if (p ~ /^\/usr\/lib\/modules\/.*\.ko$/) { sub(/.*\//, "", name); sub(/\.ko$/, "", name); gsub(/-/, "_", name); hash = name in loaded }
			if (hash) print md5[p], who, p >"tohash"
		}
		if (type == "l" && !(resolve(p, $7) in owned)) print "special", type, who, "-", "-", "-", p, $7
		else if (!usual || (p in asked)) print "special", type, who, "-", "-", note, p, $7 == "" ? "-" : $7
		next
	}
	if (p ~ /\/__pycache__\/[^\/]*\.pyc$/ && usual) {
		src = p; sub(/__pycache__\//, "", src); sub(/\.cpython-[^\/]*$/, ".py", src)
		if (src in owned) next
	}
	if (type == "d" && usual && p ~ /\/__pycache__$/) next
	if (p ~ /^\/(tmp|var\/tmp|run|proc|sys|dev)$/) next
	inside = p ~ /^\/[^\/]*$/ || p ~ /^\/(etc|usr|boot|opt|srv|root|home|bin|sbin|lib[^\/]*)\// ||
		p ~ /^\/var\/(spool|opt|local)\// || p ~ /^\/var\/lib\/(cloud\/scripts|cloud\/handlers|systemd\/linger|polkit-1|misc)\// ||
		p ~ /^\/run\/(systemd\/(system|system\.control|generator[^\/]*|transient|user|network|system-generators)|udev\/rules\.d|sysctl\.d|tmpfiles\.d|modules-load\.d|polkit-1)\//
	program = type == "f" && mode ~ /[1357]/ && p !~ /^\/var\/lib\/dpkg\/(info|tmp\.ci)\//
	# Set user or group ID, a capability, or writable by everybody without a sticky bit: wherever it is.
	sharp = note != "-" || type == "f" && mode ~ /^[246]/ || type != "l" && mode ~ /[2367]$/ && type ~ /[fd]/ && mode !~ /^[1357]/ || $3 ~ /^[0-9]+$/ || $4 ~ /^[0-9]+$/
	if (p ~ /^\/dev\// && type != "f" && type != "d") next
	if (!inside && !program && !sharp) next
	dir = p; sub(/\/[^\/]*$/, "", dir)
	if (++perdir[dir] > 450 || ++total > 2500) { more++; next }
	if (type == "l") { to = resolve(p, $7); note = to in owned ? "package" : "-" }
	if (type == "f" && $5 <= 4194304) { print p >"unhash"; print "unowned", type, who, "MD5", "SHA", note, p, "-" >"unowned" }
	else print "unowned", type, who, "-", "-", note, p, $7 == "" ? "-" : $7
}
END {
	for (p in md5) if (!(p in seen) && p !~ /^\/usr\/share\/(doc|man|locale|info)\//) print "missing", "f", "-", "-", "-", "-", "-", "-", p, "-"
	if (more) print "unowned", "f", "-", "-", "-", "-", "-", "-", "/and-" more "-more", "-"
}' OFS='\t' all >found || exit 1
sed 's/^/unowned\tf\t-\t-\t-\t-\t-\t-\t/; s/$/\t-/' odd
cat found
touch tohash unhash unowned
cut -f 5 tohash | tr '\n' '\0' | xargs -0 -r md5sum -z -- 2>/dev/null | tr '\0' '\n' >is
awk -F '\t' 'NR == FNR { is[substr($0, 35)] = substr($0, 1, 32); next }
	is[$5] != $1 { print "changed", "f", $2, $3, $4, is[$5] == "" ? "-" : is[$5], "-", "-", $5, "-" }' OFS='\t' is tohash
tr '\n' '\0' <unhash | xargs -0 -r md5sum -z -- 2>/dev/null | tr '\0' '\n' >m
tr '\n' '\0' <unhash | xargs -0 -r sha256sum -z -- 2>/dev/null | tr '\0' '\n' >s
awk -F '\t' 'FILENAME == "sums" { sum = substr($0, 1, 32); p = substr($0, 35); if (p !~ /^\//) p = "/" p; of[sum] = sum in of && length(of[sum]) < 500 ? of[sum] "," p : p; next }
	FILENAME == "m" { m[substr($0, 35)] = substr($0, 1, 32); next }
	FILENAME == "s" { s[substr($0, 67)] = substr($0, 1, 64); next }
	{ $6 = m[$9] == "" ? "-" : m[$9]; $7 = s[$9] == "" ? "-" : s[$9]; if (m[$9] in of) $8 = ($8 == "-" ? "" : $8 ",") "copy=" of[m[$9]]; print }' OFS='\t' sums m s unowned
# What the maintainers' scripts enable, and which alternatives they ask for.
grep -ohE "enable '?[A-Za-z0-9@_.:-]+" /var/lib/dpkg/info/*.postinst /var/lib/dpkg/info/*.postrm 2>/dev/null | tr -d "'" | sort -u | awk '{print "enables\t" $2}'
cat /var/lib/dpkg/info/*.postinst /var/lib/dpkg/info/*.prerm /var/lib/dpkg/info/*.preinst 2>/dev/null | tr -cs 'A-Za-z0-9_.+/@[-' '\n' | sort -u >words
awk -F '\t' 'NR == FNR { w[$0] = 1; next } $9 ~ /^\/etc\/alternatives\// { n = $9; sub(/.*\//, "", n); if (n in w) print "asked\t" n }' words found
for f in /etc/ssl/certs/ca-certificates.crt; do
	[ -f "$f" ] || continue
	find /usr/share/ca-certificates -name '*.crt' -print0 | xargs -0 awk '1' >known
	awk '/^-----BEGIN/ {b = ""} {b = b $0} /^-----END/ { if (NR == FNR) k[b] = 1; else if (!(b in k)) bad = 1; b = "" } END { print "certificates\t" (bad ? "foreign" : "packages") }' known "$f"
done
X
