# Packages and where updates come from.

fact package-sources 60 <<'X'
. "$tmp/lib.sh"
{
	files /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/apt.conf /etc/apt/apt.conf.d/*
	# In files of stanzas, what belongs to one that is off is shown as a comment.
	for f in /etc/apt/sources.list.d/*.sources /etc/yum.repos.d/*.repo /etc/zypp/repos.d/*.repo; do
		[ -f "$f" ] || continue
		echo "### $f"
		awk 'BEGIN { RS = ""; FS = "\n" }
			{ off = tolower("\n" $0) ~ /\nenabled[ \t]*[:=][ \t]*(no|0|false)/ ? "# " : ""
			  for (i = 1; i <= NF; i++) print off $i }' "$f"
	done
} | grep -E '^### |://|[Tt]rusted|Allow|gpgcheck'
ls -1 /var/lib/apt/lists 2>/dev/null | sed 's/^/list /'
:
X

fact apt-periodic <<'X'
command -v apt-config >/dev/null || { echo "no apt"; exit 0; }
apt-config dump | grep -E '^APT::Periodic::' || :
X

fact packages 60 <<'X'
if command -v dpkg-query >/dev/null; then dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n'
else rpm -qa --qf 'ii %{NAME} %{VERSION}-%{RELEASE}\n'; fi
X
