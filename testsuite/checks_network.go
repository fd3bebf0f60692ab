package testsuite

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

func networkChecks() []Check {
	const ref = "OTC image factory introduction: sshd is the only network facing service enabled by default"
	refs := []string{ref}
	return []Check{
		{
			ID: "net.listeners-tcp", Severity: Critical, Needs: []string{"sockets"}, References: refs,
			Title: "only sshd listens on TCP beyond loopback",
			Why:   "Every other service can be attacked.",
			Judge: func(f Facts, _ Params) Verdict {
				tcp, _, _, _, _ := f.socketState("sockets").kinds()
				v := judgeSockets(tcp, "sshd on port 22")
				if v.Status == Pass && len(tcp) == 0 {
					return unknown("no listening sshd is shown, although it was reached")
				}
				return v
			},
		},
		{
			ID: "net.listeners-udp", Severity: High, Needs: []string{"sockets"}, References: refs,
			Title: "only the DHCP client receives UDP beyond loopback",
			Why:   "Every other service can be attacked.",
			Judge: func(f Facts, _ Params) Verdict {
				_, udp, _, _, _ := f.socketState("sockets").kinds()
				return judgeSockets(udp, "a DHCP client on port 68 or 546, or none")
			},
		},
		{
			ID: "net.listeners-loopback", Severity: Medium, Needs: []string{"sockets"}, References: refs,
			Title: "only the time daemon, the resolver and mail listen on loopback",
			Why:   "Every user and every tunnel reaches what listens there.",
			Judge: func(f Facts, _ Params) Verdict {
				_, _, loopback, _, _ := f.socketState("sockets").kinds()
				return judgeSockets(loopback, "chronyd, systemd-resolved or a mailer, or none")
			},
		},
		{
			ID: "net.sockets-other", Severity: High, Needs: []string{"sockets"}, References: refs,
			Title: "no socket of another kind receives anything",
			Why:   "SCTP, DCCP, UDP-Lite, raw, packet, vsock and other sockets are seen by no list of ports.",
			Judge: func(f Facts, _ Params) Verdict {
				st := f.socketState("sockets")
				_, _, _, other, _ := st.kinds()
				bad, good := strangers(other)
				return judgeNone(slices.Concat(bad, st.strangeProtocols()), "raw and packet sockets of the DHCP client, or none", names(good))
			},
		},
		{
			ID: "net.namespaces", Severity: High, Needs: []string{"sockets"}, References: refs,
			Title: "no network namespace holds a device, a listener or a name",
			Why:   "What listens in another namespace is not seen in this one.",
			Judge: func(f Facts, _ Params) Verdict {
				return judgeNone(f.socketState("sockets").strangeSpaces(), "private networks of units, with nothing in them", "")
			},
		},
		{
			ID: "net.listeners-later", Severity: High, Needs: []string{"sockets", "sockets-later"}, References: refs,
			Title: "nothing more listens minutes later and after the network was restarted",
			Why:   "A hook of the network or a timer starts what the first look does not see.",
			Judge: func(f Facts, _ Params) Verdict {
				before := f.socketState("sockets").strange()
				return judgeNone(without(f.socketState("sockets-later").strange(), before), "nothing more than at first", "")
			},
		},
		{
			ID: "net.state", Severity: High, Needs: []string{"net-state"}, References: refs,
			Title: "packets go where the network says: no tunnel, bridge, filter, rule, foreign route or program in the kernel",
			Why:   "A forward, a filter or a program in the kernel opens ports and hides them from every list.",
			Judge: judgeNetState,
		},
		{
			ID: "net.dhcp", Severity: High, Needs: []string{"network"},
			Title:      "the network is configured by cloud-init, its address comes by DHCP",
			Why:        "A machine must get its address wherever it starts.",
			References: []string{"OTC image factory introduction: cloud-init"},
			Judge:      judgeDHCP,
		},
		{
			ID: "net.ports-outside", Severity: Critical, Needs: []string{"wire-ports"}, References: refs,
			Title: "from outside only sshd answers, in both families",
			Why:   "What the machine says of itself can be a lie; what answers is there.",
			Judge: judgePortsOutside,
		},
		{
			ID: "net.quiet", Severity: High, Needs: []string{"wire-flows"},
			Title:      "the machine speaks to nobody but the servers that the image names",
			Why:        "Who calls home, or takes a server that the network offers, can be led anywhere.",
			References: []string{"OTC image factory introduction: preconfigured to use a local NTP time source", ref},
			Judge:      judgeQuiet,
		},
		{
			ID: "ntp.asked", Severity: Medium, Needs: []string{"wire-flows"},
			Title:      "the image's time servers are asked for the time, each of them",
			Why:        "A daemon that is configured and does not ask lets the clock drift.",
			References: []string{"OTC image factory introduction: preconfigured to use a local NTP time source"},
			Judge:      judgeTimeAsked,
		},
	}
}

func judgeNone(bad []string, expected, found string) Verdict {
	if len(bad) > 0 {
		return failed(expected, "also "+names(bad))
	}
	return Verdict{Status: Pass, Expected: expected, Found: cmpOr(found, "none")}
}

func judgeSockets(sockets []socket, expected string) Verdict {
	bad, good := strangers(sockets)
	return judgeNone(bad, expected, names(good))
}

// goodRoute reports whether the kernel, a DHCP client or a router gave the route.
// The scripts of dhclient do not say that they did: where the default route says who
// gave it, a route of nobody's is foreign; where it does not, one by way of its gateway
// may be dhclient's.
func goodRoute(l []string, gateways []string) bool {
	if slices.Contains([]string{"local", "broadcast", "anycast", "multicast"}, l[0]) {
		return valueAfter(l, "proto") == "kernel"
	}
	if slices.Contains([]string{"blackhole", "unreachable", "prohibit", "throw"}, l[0]) {
		return false
	}
	switch valueAfter(l, "proto") {
	case "kernel", "ra", "dhcp":
		return valueAfter(l, "table") == ""
	case "":
		via := valueAfter(l, "via")
		return valueAfter(l, "table") == "" && (l[0] == "default" && via != "" || slices.Contains(gateways, cmpOr(via, l[0])))
	}
	return false
}

func valueAfter(l []string, key string) string {
	if i := slices.Index(l, key); i >= 0 && i+1 < len(l) {
		return l[i+1]
	}
	return ""
}

const (
	flagPromisc  = 0x100 // IFF_PROMISC
	flagLoopback = 0x8
)

func judgeNetState(f Facts, _ Params) Verdict {
	var bad, gateways []string
	devices := 0
	lines := f.lines("net-state")
	for _, l := range lines {
		if l[0] == "route" && len(l) > 3 && l[1] == "default" && valueAfter(l, "proto") == "" {
			gateways = append(gateways, valueAfter(l, "via"))
		}
	}
	for _, l := range lines {
		good := false
		switch l[0] {
		case "device":
			devices++
			if len(l) == 4 {
				flags, err := strconv.ParseUint(strings.TrimPrefix(l[3], "0x"), 16, 32)
				good = err == nil && (l[2] == "hardware" || l[1] == "lo" && flags&flagLoopback != 0) && flags&flagPromisc == 0
			}
		case "route":
			good = len(l) > 1 && goodRoute(l[1:], gateways)
		case "rule":
			good = slices.Contains([]string{"0: from all lookup local", "32766: from all lookup main", "32767: from all lookup default"}, strings.Join(l[1:], " "))
		case "qdisc":
			good = len(l) == 3 && slices.Contains([]string{"noqueue", "fq_codel", "fq", "pfifo_fast", "mq", "pfifo", "noop"}, l[1])
		case "bpf":
			// systemd attaches its units' rules to their control groups.
			good = len(l) == 3 && l[1] == "bpf-prog" && (l[2] == "/usr/lib/systemd/systemd" || l[2] == "/lib/systemd/systemd")
		}
		if !good {
			bad = append(bad, strings.Join(l, " "))
		}
	}
	if devices < 2 {
		return unknown("no network device is shown, although one was used")
	}
	return judgeNone(bad, "devices of hardware, routes and rules of the kernel, DHCP and routers, and nothing else", "")
}

// Protocols of IP that a Linux speaks by itself: ICMP, IGMP, TCP, UDP, ICMPv6, no next
// header, PIM for multicast routes, and UDP-Lite, whose sockets net.sockets-other
// shows. A tunnel has its own number.
var spokenProtocols = []string{"1", "2", "6", "17", "58", "59", "103", "136"}

func judgePortsOutside(f Facts, _ Params) Verdict {
	var bad, good []string
	reached := map[string]bool{}
	for _, l := range f.lines("wire-ports") {
		switch {
		case l[0] == "address" && len(l) == 2:
			continue
		case len(l) == 3 && l[0] == "tcp" && l[2] == "22":
			reached[l[1]] = true
			good = append(good, strings.Join(l, " "))
			continue
		case len(l) == 3 && l[0] == "udp" && (l[2] == "68" || l[2] == "546"):
			continue
		case len(l) == 3 && l[0] == "protocol" && slices.Contains(spokenProtocols, l[2]):
			continue
		case l[0] == "silent": // a filter, behind which nothing answers
			good = append(good, strings.Join(l, " "))
			continue
		}
		bad = append(bad, strings.Join(l, " "))
	}
	const expected = "tcp port 22 on each address, and nothing else"
	if len(bad) > 0 {
		return failed(expected, "also "+names(bad))
	}
	if len(reached) == 0 {
		return unknown("no sshd was seen from outside, although it was reached")
	}
	return Verdict{Status: Pass, Expected: expected, Found: names(good)}
}

// expectedFlows are what a good machine sends beside questions for names and the time.
var expectedFlows = []struct{ proto, addr, port, reason string }{
	{"dhcp", "*", "67", "its address"},
	{"ip-2", "224.0.0.22", "0", "IGMP: which multicast it listens to"},
	{"ethertype-88cc", "-", "0", "LLDP, where systemd-networkd sends it"},
	{"tcp", "169.254.169.254", "80", "the metadata of clouds, which cloud-init looks for"},
	{"icmp", "*", "3", "what it refuses"},
	{"icmp6", "*", "1", "what it refuses"},
	{"icmp6", "*", "4", "what it does not know"},
}

// Names that cloud-init asks for, to see whether a resolver knows everything.
func cloudInitName(name string) bool {
	return name == "does-not-exist.example.com" || name == "example.invalid" || strings.HasPrefix(name, "__cloud_init_expected_not_found__")
}

func judgeQuiet(f Facts, p Params) Verdict {
	hosts := slices.Clone(p.NTPServers)
	for _, repository := range p.Repositories {
		if u, err := url.Parse(repository.URL); err == nil && u.Hostname() != "" {
			hosts = append(hosts, u.Hostname())
		}
	}
	var bad, good []string
	for _, l := range f.lines("wire-flows") {
		if len(l) < 5 {
			bad = append(bad, strings.Join(l, " "))
			continue
		}
		ok := slices.ContainsFunc(expectedFlows, func(e struct{ proto, addr, port, reason string }) bool {
			return e.proto == l[0] && (e.addr == "*" || e.addr == l[1]) && e.port == l[2]
		})
		switch l[0] {
		case "dns":
			kind, name, _ := strings.Cut(l[4], ":")
			ok = slices.Contains(hosts, name) || cloudInitName(name) || kind == "PTR" || p.Hostname != "" && (name == p.Hostname || strings.HasPrefix(name, p.Hostname+"."))
		case "ntp":
			ok = slices.Contains(p.NTPServers, l[4])
		case "tcp":
			ok = ok || slices.Contains(hosts, l[4]) && (l[2] == "80" || l[2] == "443")
		}
		if text := fmt.Sprintf("%s %s %s %s %s", l[0], l[1], l[2], l[4], strings.Join(l[5:], " ")); ok {
			good = append(good, text)
		} else {
			bad = append(bad, text)
		}
	}
	return judgeNone(bad, "addresses by DHCP, names and the time from the servers that the image names", names(good))
}

func judgeTimeAsked(f Facts, p Params) Verdict {
	if len(p.NTPServers) == 0 {
		return unknown("the definition names no time servers")
	}
	answered := map[string]bool{}
	for _, l := range f.lines("wire-flows") {
		if len(l) >= 5 && l[0] == "ntp" {
			answered[l[4]] = true
		}
	}
	var silent []string
	for _, name := range p.NTPServers {
		if _, err := netip.ParseAddr(name); err != nil && !answered[name] {
			silent = append(silent, name)
		}
	}
	if len(silent) > 0 {
		return failed(names(p.NTPServers), "not asked: "+names(silent))
	}
	return Verdict{Status: Pass, Expected: names(p.NTPServers), Found: names(p.NTPServers)}
}

func judgeDHCP(f Facts, _ Params) Verdict {
	const expected = "a dynamic address, and a configuration that cloud-init rendered"
	var dynamic, static, rendered []string
	for _, l := range f.lines("network") {
		switch {
		case l[0] == "rendered" && len(l) == 2:
			rendered = append(rendered, l[1])
		case len(l) > 3 && (l[2] == "inet" || l[2] == "inet6") && slices.Contains(l, "dynamic"):
			dynamic = append(dynamic, l[1]+" "+l[3])
		case len(l) > 3 && l[2] == "inet":
			static = append(static, l[1]+" "+l[3])
		}
	}
	found := fmt.Sprintf("address %s, configuration %s", cmpOr(names(dynamic), "not dynamic"), cmpOr(names(rendered), "not cloud-init's"))
	if len(static) > 0 {
		found = "address not dynamic: " + names(static) + "; " + found
	}
	if len(dynamic) == 0 || len(static) > 0 || len(rendered) == 0 {
		return failed(expected, found)
	}
	return Verdict{Status: Pass, Expected: expected, Found: found}
}
