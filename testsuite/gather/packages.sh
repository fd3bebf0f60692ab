# Packages and where updates come from: what the package manager would do, by its
# own word where it has one, and its files whole where it has none.

fact package-sources 60 <<'X'
. "$tmp/lib.sh"
{
	files /etc/apt/sources.list /etc/apt/sources.list.d/*
	# In files of stanzas, what belongs to one that is off is shown as a comment.
	for f in /etc/apt/sources.list.d/*.sources /etc/yum.repos.d/*.repo /etc/zypp/repos.d/*.repo; do
		[ -f "$f" ] || continue
		echo "### $f"
		awk 'BEGIN { RS = ""; FS = "\n" }
			{ off = tolower("\n" $0) ~ /\nenabled[ \t]*[:=][ \t]*(no|0|false)/ ? "# " : ""
			  for (i = 1; i <= NF; i++) print off $i
			  print "" }' "$f"
	done
} | awk '/^### / { show = !(/\.sources$/ && !seen[$0]++) } show'
ls -1 /var/lib/apt/lists 2>/dev/null | sed 's/^/list /'
:
X

# apt keeps what it computed in files, unless they have no names: nothing is to be
# written on the machine.
quiet='-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache='
export quiet

# What apt would fetch: the sources as apt itself understands its files.
fact apt-targets <<'X'
command -v apt-get >/dev/null || { echo "no apt"; exit 0; }
apt-get $quiet indextargets --no-release-info --format '$(TARGET_OF) $(REPO_URI) $(RELEASE) $(COMPONENT)' >"$tmp/targets" || exit 1
sort -u "$tmp/targets"
X

# All of apt's configuration, as apt reads it: comments, includes and #clear are done.
fact apt-config <<'X'
command -v apt-config >/dev/null || { echo "no apt"; exit 0; }
apt-config dump
X

# What else changes what is installed, without comments: options of dpkg, pins,
# passwords for sources, and the configuration, locks and excludes of dnf, yum and zypper.
fact package-options <<'X'
. "$tmp/lib.sh"
files /etc/apt/preferences /etc/apt/preferences.d/* /etc/apt/auth.conf /etc/apt/auth.conf.d/* \
	/etc/dpkg/dpkg.cfg /etc/dpkg/dpkg.cfg.d/* /root/.dpkg.cfg \
	/etc/dnf/dnf.conf /etc/yum.conf /etc/yum/yum.conf /etc/dnf/plugins/versionlock.list /etc/yum/pluginconf.d/versionlock.list \
	/etc/dnf/automatic.conf /etc/zypp/zypp.conf /etc/zypp/zypper.conf /etc/zypp/locks |
	grep -E '^### |^[[:space:]]*[^#;[:space:]]' || :
X

# Each file of keys that apt or rpm may believe, with its package ("-" is none).
fact package-keys 90 <<'X'
set -f
for f in $(set +f; cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^[[:space:]]*#' |
		grep -ioE 'signed-by[[:space:]]*[:=][^]]*' | tr ':=, \t]' '\n\n\n\n\n\n' | grep '^/'
	ls -1d /etc/apt/trusted.gpg /etc/apt/trusted.gpg.d/* /etc/apt/keyrings/* /etc/pki/rpm-gpg/* 2>/dev/null); do
	echo "$f"
done | sort -u >"$tmp/keyfiles"
[ "$(wc -l <"$tmp/keyfiles")" -le 100 ] || { echo "more than 100 files of keys" >&2; exit 1; }
[ -s "$tmp/keyfiles" ] || { echo "no files of keys"; exit 0; }
if command -v dpkg-query >/dev/null; then dpkg-query -S $(cat "$tmp/keyfiles") 2>/dev/null | sed 's/^\([^:]*\): \(.*\)/\2 \1/'
else while read -r f; do rpm -qf --qf "$f %{NAME}\n" "$f" | grep -v 'not owned'; done <"$tmp/keyfiles"; fi >"$tmp/owners"
while read -r f; do
	[ -f "$f" ] || { echo "missing $f"; continue; }
	owner=$(awk -v f="$f" '$1 == f {print $2; exit}' "$tmp/owners")
	echo "key $f ${owner:--} $(head -c 150000 "$f" | base64 | tr -d '\n')"
done <"$tmp/keyfiles"
X

fact packages 60 <<'X'
if command -v dpkg-query >/dev/null; then dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version} ${Architecture}\n'
else rpm -qa --qf 'ii %{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{ARCH}\n'; fi
X

# What apt and dpkg find amiss, and what they would do about it. Nothing is done.
fact package-state 90 <<'X'
command -v apt-get >/dev/null || { echo "no apt"; exit 0; }
dpkg --print-foreign-architectures | sed 's/^/foreign /'
dpkg --audit | grep '[^[:space:]]' | sed 's/^/audit /'
update-alternatives --get-selections | awk '$2 != "auto" {print "alternative", $1, $3}'
apt-get $quiet -s -qq dist-upgrade >"$tmp/plan" 2>&1 || echo "upgrade ends with status $?"
sed 's/^/upgrade /' "$tmp/plan"
apt-get $quiet -s -qq -f install >"$tmp/plan" 2>&1 || echo "repair ends with status $?"
sed 's/^/repair /' "$tmp/plan"
echo looked
X

# Whatever may update the machine without being asked.
fact update-units <<'X'
systemctl list-unit-files --no-legend --no-pager 'apt*' '*unattended*' '*packagekit*' '*dnf*' '*yum*' '*zypp*' \
	'*transactional-update*' '*os-update*' '*auto-update*' 'snapd*' 'fwupd*' 2>/dev/null | awk '{print "file", $1, $2}'
systemctl list-units --all --plain --no-legend --no-pager 'apt*' '*unattended*' '*packagekit*' '*dnf*' '*yum*' '*zypp*' \
	'*transactional-update*' '*os-update*' '*auto-update*' 'snapd*' 'fwupd*' | awk '{print "unit", $1, $3}'
:
X

# The cloud's agents and drivers: their packages, files, units and processes. The
# machine is Xen's where /sys/hypervisor says so; before systemd, /etc/*-release names it.
fact agents 60 <<'X'
names='^(kmod-|libxenstore|lib)?(uvp|xenstore)|^uvp-|^bms-network-config|^otc-tools|ixgbevf'
if command -v dpkg-query >/dev/null; then dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' | sed 's/^\(..\). /\1 /'
else rpm -qa --qf 'ii %{NAME} %{VERSION}-%{RELEASE}\n'; fi | awk -v n="$names" '$2 ~ n {print "package", $0}'
[ -f /sys/hypervisor/type ] && echo "hypervisor $(cat /sys/hypervisor/type)"
for f in /dev/xen/xenbus /proc/xen/xenbus; do [ -r "$f" ] && echo "xenbus $f"; done
head -qn 1 /etc/centos-release /etc/oracle-release /etc/redhat-release 2>/dev/null | sed 's/^/release /'
owner() {
	if command -v dpkg-query >/dev/null; then dpkg-query -S "$1" 2>/dev/null | sed -n 's/^\([^:,]*\).*/\1/p' | head -n 1
	else rpm -qf --qf '%{NAME}\n' "$1" 2>/dev/null | grep -v ' '; fi
}
for f in /usr/bin/uvp-monitor /etc/init.d/uvp-monitor /usr/sbin/uvp-monitor /etc/.uvp-monitor; do
	[ -e "$f" ] && echo "file $f $(owner "$f" | grep . || echo -)"
done
systemctl show --no-pager -p LoadState,ActiveState,UnitFileState,FragmentPath uvp-monitor.service 2>/dev/null | sed 's/=/ /;s/^/unit /'
# A script of init starts where a link says so: systemd asks the same.
for f in /etc/rc[2-5].d/S[0-9][0-9]uvp-monitor; do [ -e "$f" ] && echo "starts $f"; done
# One program looks at all processes: a fork for each would take long.
find /proc -maxdepth 2 -path '/proc/[0-9]*/exe' -printf '%h %l\n' 2>/dev/null | sed -n 's,^/proc/\([0-9]*\) \(.*uvp-monitor.*\),\1 \2,p' >"$tmp/agents"
grep -sHE 'uvp-monitor' /proc/[0-9]*/comm | sed -n 's,^/proc/\([0-9]*\)/comm:.*,\1,p' | while read -r pid; do
	grep -q "^$pid " "$tmp/agents" || echo "$pid $(readlink "/proc/$pid/exe")"
done >>"$tmp/agents"
while read -r pid exe; do echo "process $pid $(owner "$exe" | grep . || echo -) $exe"; done <"$tmp/agents"
f=$(modinfo -F filename ixgbevf 2>/dev/null | head -n 1) && [ -n "$f" ] &&
	echo "ixgbevf $(modinfo -F version ixgbevf | head -n 1 | grep . || echo -) $(owner "$f" | grep . || echo -) $f"
:
X
