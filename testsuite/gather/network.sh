# Sockets, addresses and names. Read from the kernel's own files: the machine's
# programs that show sockets are its own, and show what they like.

# lib.sh: sockets says, of every network namespace that a process, a descriptor or a
# mount holds, a line each:
#   ns ID FILE                         a namespace and what leads to it, that of process 1 first
#   socket ID TABLE LOCAL INODE        of /proc/net/TABLE: what listens or receives from anybody; LOCAL is ADDRESS:PORT in
#                                      the kernel's hexadecimal, for packet INTERFACE:TYPE, for unix the name, for sctp the port
#   protocol ID NAME COUNT             of /proc/net/protocols: how many sockets there are
#   device ID NAME                     a network device
#   holder INODE PID UNIT EXECUTABLE   of each of those sockets, and of sockets in none of the tables, with 0 for the inode
cat >>"$tmp/lib.sh" <<'X'
namespaces() {
	{
		find /proc/1/ns/net -maxdepth 0 -printf '%l %p\n'
		find /proc/[0-9]*/ns/net -maxdepth 0 -printf '%l %p\n'
		find /proc/[0-9]*/fd -lname 'net:*' -printf '%l %p\n'
		awk '{for (i = 7; i < NF; i++) if ($i == "-" && $(i + 1) == "nsfs" && $4 ~ /^net:/) {
			split(FILENAME, f, "/"); print $4, "/proc/" f[3] "/root" $5}}' /proc/[0-9]*/mountinfo
	} 2>/dev/null | awk '$1 ~ /^net:/ && !seen[$1]++'
}
tables='tcp tcp6 udp udp6 udplite udplite6 raw raw6 icmp icmp6'
tables_of() { # ID DIRECTORY
	for t in $tables; do set -- "$@" "$2/$t"; done
	id=$1 dir=$2
	shift 2
	awk -v id="$id" '
		FNR == 1 { n = split(FILENAME, f, "/"); table = f[n]; next }
		{ if (table ~ /^tcp/ ? $4 == "0A" : $4 != "01") print "socket", id, table, $2, $10; else print "known", $10 }' "$@" 2>/dev/null
	awk -v id="$id" 'FNR > 1 {print "socket", id, "packet", $5 ":" $4, $9}' "$dir/packet"
	awk -v id="$id" 'FNR > 1 {if ($4 == "00010000" && substr($8, 1, 1) == "@") print "socket", id, "unix", $8, $7; else print "known", $7}' "$dir/unix"
	awk 'FNR > 1 {print "known", $10}' "$dir/netlink"
	[ ! -f "$dir/sctp/eps" ] || awk -v id="$id" 'FNR > 1 {print "socket", id, "sctp", $6, $8}' "$dir/sctp/eps"
	awk -v id="$id" 'FNR > 1 && $3 > 0 {print "protocol", id, $1, $3}' "$dir/protocols"
	awk -v id="$id" 'FNR > 2 {sub(":.*", "", $1); print "device", id, $1}' "$dir/dev"
}
sockets() {
	namespaces >"$tmp/ns" && [ -s "$tmp/ns" ] || return 1
	# What is held before and after the tables are read should be in one of them.
	find /proc/[0-9]*/fd -lname 'socket:*' -printf 'before %p %l\n' >"$tmp/before" 2>/dev/null
	while read -r id file; do
		echo "ns $id $file"
		case "$file" in
		/proc/[0-9]*/ns/net) tables_of "$id" "${file%/ns/net}/net" ;;
		*) export tables; nsenter --net="$file" sh -c '. "$tmp/lib.sh"; tables_of "$1" /proc/self/net' sh "$id" || return 1 ;;
		esac
	done <"$tmp/ns" >"$tmp/sockets"
	{
		cat "$tmp/before" "$tmp/sockets"
		{
			awk '{n = split(FILENAME, f, "/"); u = $0; sub(".*/", "", u); if ($0 ~ /^(0:|[0-9]+:name=systemd)/) print "unit", f[3], u == "" ? "-" : u}' /proc/[0-9]*/cgroup
			find /proc/[0-9]*/exe -maxdepth 0 -printf 'exe %p %l\n'
			find /proc/[0-9]*/fd -lname 'socket:*' -printf 'fd %p %l\n'
		} 2>/dev/null
	} | awk '
		$1 == "unit" {unit[$2] = $3; next}
		$1 == "exe" {split($2, f, "/"); exe[f[3]] = substr($0, length($1 $2) + 3); next}
		$1 == "known" {known[$2] = 1; next}
		$1 == "before" {before[$2 $3] = 1; next}
		$1 == "fd" {
			split($2, f, "/"); inode = $3; gsub("[^0-9]", "", inode)
			if (known[inode] || !wanted[inode] && !before[$2 $3]) next
			key = (wanted[inode] ? inode : 0) " " f[3]
			if (!said[key]++) print "holder", key, (f[3] in unit ? unit[f[3]] : "-"), exe[f[3]]
			next
		}
		{print}
		$1 == "socket" {wanted[$NF] = 1}'
}
X

fact sockets <<'X'
. "$tmp/lib.sh"
sockets
X

# Everything that decides where a packet goes, beside addresses: the devices that are
# not hardware, routes that nobody gave, rules, filters, tunnels, programs in the kernel.
fact net-state <<'X'
for d in /sys/class/net/*; do
	[ -e "$d/flags" ] || continue
	[ -e "$d/device" ] && kind=hardware || kind=virtual
	read -r flags <"$d/flags"
	[ ! -L "$d/master" ] || kind="$kind,enslaved"
	echo "device ${d##*/} $kind $flags"
done
ip -o link >"$tmp/links" || exit 1
awk '/ (xdp|xdpgeneric|xdpdrv|xdpoffload|prog\/xdp)[ \/]/ {sub(":$", "", $2); print "xdp", $2}' "$tmp/links"
{ ip -o route show table all && ip -o -6 route show table all; } >"$tmp/routes" || exit 1
sed 's/^/route /' "$tmp/routes" | sort -u
{ ip rule && ip -6 rule; } >"$tmp/rules" || exit 1
sed 's/^/rule /' "$tmp/rules"
{ ip neigh show proxy; ip -6 neigh show proxy; } 2>/dev/null | sed 's/^/proxy /'
{ ip -o xfrm state; ip -o xfrm policy; } 2>/dev/null | sed 's/^/xfrm /'
tc qdisc show | awk '{print "qdisc", $2, $5}' || exit 1
for f in ip_tables_names ip6_tables_names arp_tables_names; do
	[ ! -r "/proc/net/$f" ] || sed "s/^/table $f /" "/proc/net/$f"
done
[ ! -r /proc/net/ip_vs ] || awk 'FNR > 3 {print "ipvs", $0}' /proc/net/ip_vs
if grep -q '^nf_tables ' /proc/modules; then
	if command -v nft >/dev/null; then nft list ruleset >"$tmp/nft" || exit 1; sed 's/^/nft /' "$tmp/nft"
	else echo "nft is in the kernel, and no program here shows its rules"; fi
fi
find /proc/[0-9]*/fd -lname 'anon_inode:bpf*' -printf '%p %l\n' 2>/dev/null |
	awk '{split($1, f, "/"); n[f[3] " " $2]++} END {for (k in n) print k}' |
	while read -r pid what; do echo "bpf ${what#anon_inode:} $(readlink "/proc/$pid/exe")"; done | sort -u
find /sys/fs/bpf -mindepth 1 -printf 'bpf pinned %p\n' 2>/dev/null
:
X

fact hostname <<'X'
echo "kernel $(cat /proc/sys/kernel/hostname)"
echo "file $(cat /etc/hostname)"
echo "resolves $(timeout 10 getent ahosts "$(cat /proc/sys/kernel/hostname)" | awk 'NR == 1 {print $1}')"
X

fact network <<'X'
ip -o addr show scope global
ip route show default
ls -1 /etc/netplan/*cloud-init* /etc/network/interfaces.d/*cloud-init* /etc/systemd/network/*cloud-init* \
	/run/systemd/network/*netplan* /etc/sysconfig/network-scripts/ifcfg-* \
	/etc/NetworkManager/system-connections/*cloud-init* 2>/dev/null | sed 's/^/rendered /'
:
X
