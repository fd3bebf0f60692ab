package testsuite

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// What a machine has of sockets, as the fact sockets says it.
type socketState struct {
	sockets   []socket
	protocols []protocolCount
	spaces    []namespace // that of process 1 first
	strays    []holder    // of sockets that no table shows
}

// A socket listens, or receives from anybody.
type socket struct {
	space   string // the network namespace's ID
	table   string // of /proc/net: tcp, udp6, raw, packet, …
	local   string // readable: ADDRESS:PORT, or for raw and icmp ADDRESS and protocol
	addr    netip.Addr
	port    uint16 // of raw: the protocol
	holders []holder
}

type holder struct{ pid, unit, exe string }

type protocolCount struct{ space, name, count string }

type namespace struct {
	id, file string
	devices  []string
}

func (s socket) String() string {
	var who []string
	for _, h := range s.holders {
		who = append(who, h.String())
	}
	return fmt.Sprintf("%s %s (%s)", s.table, s.local, cmpOr(names(who), "no process"))
}

func (h holder) String() string {
	return cmpOr(h.exe, "process "+h.pid) + " of " + cmpOr(h.unit, "no unit")
}

// runs reports whether it is a program of a package's by that name.
func (h holder) runs(name string) bool {
	dir, ok := strings.CutSuffix(h.exe, name)
	return ok && slices.Contains(programDirs, dir)
}

func (s socket) loopback() bool { return s.addr.IsValid() && s.addr.Unmap().IsLoopback() }

// ipv6 says that the table is of IPv6.
func (s socket) family() (protocol string, ipv6 bool) {
	return strings.TrimSuffix(s.table, "6"), strings.HasSuffix(s.table, "6")
}

// socketState reads a fact of sockets. A line that it does not understand is a socket that
// nothing allows, so that it is seen.
func (f Facts) socketState(fact string) socketState {
	var st socketState
	inodes := map[string][]int{}
	for _, l := range f.lines(fact) {
		switch {
		case l[0] == "ns" && len(l) == 3:
			st.spaces = append(st.spaces, namespace{id: l[1], file: l[2]})
		case l[0] == "device" && len(l) == 3 && len(st.spaces) > 0:
			last := &st.spaces[len(st.spaces)-1]
			last.devices = append(last.devices, l[2])
		case l[0] == "protocol" && len(l) == 4:
			st.protocols = append(st.protocols, protocolCount{space: l[1], name: l[2], count: l[3]})
		case l[0] == "holder" && len(l) >= 4:
			h := holder{pid: l[2], unit: l[3], exe: strings.Join(l[4:], " ")}
			if l[1] == "0" {
				st.strays = append(st.strays, h)
			}
			for _, i := range inodes[l[1]] {
				st.sockets[i].holders = append(st.sockets[i].holders, h)
			}
		case l[0] == "socket" && len(l) == 5:
			s := socket{space: l[1], table: l[2], local: l[3]}
			s.decode()
			st.sockets = append(st.sockets, s)
			if l[4] != "0" {
				inodes[l[4]] = append(inodes[l[4]], len(st.sockets)-1)
			}
		default:
			st.sockets = append(st.sockets, socket{table: "unreadable", local: strings.Join(l, " ")})
		}
	}
	return st
}

// decode reads the kernel's ADDRESS:PORT: an address is 4-byte words in the order of
// the machine's bytes, which is little-endian on all that images are built for.
func (s *socket) decode() {
	host, port, ok := strings.Cut(s.local, ":")
	b, err := hex.DecodeString(host)
	n, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || len(b) != 4 && len(b) != 16 {
		return
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	s.addr, _ = netip.AddrFromSlice(b)
	s.port = uint16(n)
	s.local = netip.AddrPortFrom(s.addr, s.port).String()
	if p, _ := s.family(); p == "raw" || p == "icmp" {
		s.local = fmt.Sprintf("%s protocol %d", s.addr, s.port)
	}
}

// init reports whether a namespace is the one that process 1 is in.
func (st socketState) init(space string) bool { return len(st.spaces) > 0 && st.spaces[0].id == space }

// An allowedSocket is what a good machine has, with the program and the unit that
// hold it. Whatever is not in a row of allowedSockets fails by its name.
type allowedSocket struct {
	protocols string   // tables without their 6
	local     []string // ports; of raw the protocol; of packet INTERFACE:TYPE, the interface being *
	loopback  bool     // only there
	programs  []string // base names in /usr/sbin and the like, see programDirs
	units     []string // or their beginning, before @
	reason    string
}

// programDirs are where packages, and nobody else, put programs.
var programDirs = []string{"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/", "/usr/lib/systemd/", "/lib/systemd/", "/usr/libexec/", "/usr/lib/NetworkManager/", "/usr/lib/wicked/bin/", "/usr/libexec/wicked/bin/", "/usr/lib/openssh/", "/usr/libexec/openssh/"}

var allowedSockets = []allowedSocket{
	{"tcp", []string{"22"}, false, []string{"sshd"}, []string{"ssh.service", "sshd.service"}, "the only service that a network is to see"},
	{"tcp", []string{"22"}, false, []string{"systemd"}, []string{"init.scope"}, "the same by its socket unit, with process 1 waiting for it"},
	{"udp", []string{"68", "546"}, false, dhcpPrograms, dhcpUnits, "the client of DHCP"},
	{"raw", []string{"58", "1"}, false, dhcpPrograms, dhcpUnits, "router advertisements and neighbours of IPv6"},
	{"icmp", []string{"58", "1"}, false, dhcpPrograms, dhcpUnits, "the same"},
	{"packet", []string{"*:0003", "*:0800", "*:0806", "*:88cc", "*:888e"}, false, dhcpPrograms, dhcpUnits, "DHCP before there is an address, and LLDP"},
	{"udp", []string{"323"}, true, []string{"chronyd"}, []string{"chrony.service", "chronyd.service"}, "what chronyc asks"},
	{"udp", []string{"123"}, true, []string{"ntpd"}, []string{"ntp.service", "ntpd.service", "ntpsec.service"}, "what ntpq asks"},
	{"tcp", []string{"53"}, true, []string{"systemd-resolved"}, []string{"systemd-resolved.service"}, "the resolver of this machine"},
	{"udp", []string{"53"}, true, []string{"systemd-resolved"}, []string{"systemd-resolved.service"}, "the resolver of this machine"},
	{"tcp", []string{"25"}, true, []string{"master", "exim4"}, []string{"postfix.service", "postfix@", "exim4.service"}, "mail of this machine's own"},
}

var (
	dhcpPrograms = []string{"systemd-networkd", "dhclient", "dhcpcd", "NetworkManager", "wickedd-dhcp4", "wickedd-dhcp6", "wickedd", "wickedd-nanny"}
	dhcpUnits    = []string{"systemd-networkd.service", "networking.service", "ifup@", "network.service", "dhcpcd.service", "NetworkManager.service", "wickedd-dhcp4.service", "wickedd-dhcp6.service", "wickedd.service", "wickedd-nanny.service", "cloud-init.service", "cloud-init-local.service"}

	// goodProtocols have sockets on every machine, which the tables show where
	// they receive anything.
	goodProtocols = []string{"TCP", "TCPv6", "UDP", "UDPv6", "UNIX", "UNIX-STREAM", "NETLINK", "PACKET", "RAW", "RAWv6", "PING", "PINGv6"}
)

func (s socket) allowed() bool {
	return len(s.holders) > 0 && !slices.ContainsFunc(s.holders, func(h holder) bool {
		return !slices.ContainsFunc(allowedSockets, func(a allowedSocket) bool { return a.allows(s, h) })
	})
}

func (a allowedSocket) allows(s socket, h holder) bool {
	protocol, _ := s.family()
	local := strconv.Itoa(int(s.port))
	if protocol == "packet" {
		_, kind, _ := strings.Cut(s.local, ":")
		local = "*:" + kind
	}
	return a.protocols == protocol && slices.Contains(a.local, local) && (s.loopback() || !a.loopback) &&
		slices.ContainsFunc(a.programs, h.runs) &&
		slices.ContainsFunc(a.units, func(unit string) bool {
			return h.unit == unit || strings.HasSuffix(unit, "@") && strings.HasPrefix(h.unit, unit)
		})
}

// sortSockets splits those of the first namespace, by the check that judges them, and the rest.
func (st socketState) kinds() (tcp, udp, loopback, other, foreign []socket) {
	for _, s := range st.sockets {
		protocol, _ := s.family()
		switch {
		case s.space != "" && !st.init(s.space):
			foreign = append(foreign, s)
		case protocol != "tcp" && protocol != "udp":
			other = append(other, s)
		case s.loopback():
			loopback = append(loopback, s)
		case protocol == "tcp":
			tcp = append(tcp, s)
		default:
			udp = append(udp, s)
		}
	}
	return tcp, udp, loopback, other, foreign
}

// strangers are what nothing allows, by name; of the good ones how many there are.
func strangers(sockets []socket) (bad, good []string) {
	for _, s := range sockets {
		if s.allowed() {
			good = append(good, s.String())
		} else {
			bad = append(bad, s.String())
		}
	}
	return bad, good
}

// strayPrograms hold sockets that no table shows, for they bind none: to set an
// interface up, and to ask who the other side is.
var strayPrograms = append([]string{"dbus-daemon", "dbus-broker", "systemd"}, dhcpPrograms...)

// strangeProtocols are sockets that no table shows, as those of vsock and TIPC, and
// protocols that have sockets and should not, in the first namespace.
func (st socketState) strangeProtocols() []string {
	var bad []string
	for _, h := range st.strays {
		if !slices.ContainsFunc(strayPrograms, h.runs) {
			bad = append(bad, "a socket that no table shows ("+h.String()+")")
		}
	}
	for _, p := range st.protocols {
		if st.init(p.space) && !slices.Contains(goodProtocols, p.name) {
			bad = append(bad, fmt.Sprintf("%s sockets of protocol %s", p.count, p.name))
		}
	}
	return bad
}

// strangeSpaces are namespaces that a network could be hidden in: those that have a
// device beside loopback, a socket beyond loopback, or a file or a descriptor that
// keeps them. A unit's PrivateNetwork has none of that.
func (st socketState) strangeSpaces() []string {
	var bad []string
	_, _, _, _, foreign := st.kinds()
	for i, space := range st.spaces {
		if i == 0 {
			continue
		}
		if !strings.HasSuffix(space.file, "/ns/net") {
			bad = append(bad, "a namespace that "+space.file+" keeps")
		}
		for _, d := range space.devices {
			if d != "lo" {
				bad = append(bad, "device "+d+" in the namespace of "+space.file)
			}
		}
		for _, s := range foreign {
			if s.space == space.id && (!s.loopback() || !s.allowed()) {
				bad = append(bad, s.String()+" in the namespace of "+space.file)
			}
		}
	}
	return bad
}

// strange is everything of a reading that nothing allows.
func (st socketState) strange() []string {
	tcp, udp, loopback, other, _ := st.kinds()
	bad, _ := strangers(slices.Concat(tcp, udp, loopback, other))
	return slices.Concat(bad, st.strangeProtocols(), st.strangeSpaces())
}
