package testsuite

import (
	"fmt"
	"strconv"
	"strings"
)

const refSysctl = "OTC image factory introduction: hardened network settings (sysctl)"

// A sysctlRule demands a range of a kernel setting. A setting with a * in its
// path is one of each network interface; how the kernel combines it with that
// of "all" differs, see kernel documentation, networking/ip-sysctl.
type sysctlRule struct {
	path     string
	min, max int
	// maxWithAll: the greater of the interface's and "all"'s value counts.
	maxWithAll bool
}

func sysctlCheck(name, title, why string, severity Severity, rules ...sysctlRule) Check {
	return Check{
		ID: "sysctl." + name, Title: title, Why: why, Severity: severity, Needs: []string{"sysctl"},
		References: []string{refSysctl, "dev-sec linux-baseline", "Linux documentation: networking/ip-sysctl"},
		Judge:      func(f Facts, _ Params) Verdict { return judgeSysctl(f.values("sysctl"), rules) },
	}
}

func judgeSysctl(values map[string][]string, rules []sysctlRule) Verdict {
	var wrong, right []string
	var expected []string
	v6 := false
	for path := range values {
		v6 = v6 || strings.HasPrefix(path, "net/ipv6/")
	}
	for _, r := range rules {
		if strings.HasPrefix(r.path, "net/ipv6/") && !v6 {
			continue
		}
		expected = append(expected, fmt.Sprintf("%s %s", strings.ReplaceAll(r.path, "/", "."), r.span()))
		seen := false
		for path, v := range values {
			if !r.matches(path) || len(v) != 1 {
				continue
			}
			seen = true
			n, err := strconv.Atoi(v[0])
			if err != nil {
				return unknown("%s is %q, not a number", path, v[0])
			}
			if all := values[strings.Replace(r.path, "*", "all", 1)]; r.maxWithAll && len(all) == 1 && !strings.Contains(path, "/default/") {
				if a, err := strconv.Atoi(all[0]); err == nil {
					n = max(n, a)
				}
			}
			shown := fmt.Sprintf("%s=%s", strings.ReplaceAll(path, "/", "."), v[0])
			if n < r.min || n > r.max {
				wrong = append(wrong, shown)
			} else {
				right = append(right, shown)
			}
		}
		if !seen {
			return unknown("the kernel does not show %s", r.path)
		}
	}
	switch {
	case len(expected) == 0:
		return skipped("the kernel runs without IPv6")
	case len(wrong) > 0:
		return failed(strings.Join(expected, ", "), names(wrong))
	}
	return Verdict{Status: Pass, Expected: strings.Join(expected, ", "), Found: names(right)}
}

func (r sysctlRule) span() string {
	if r.min == r.max {
		return "= " + strconv.Itoa(r.min)
	}
	return fmt.Sprintf("= %d to %d", r.min, r.max)
}

// matches leaves the loopback interface out: no packet comes from outside.
func (r sysctlRule) matches(path string) bool {
	before, after, wild := strings.Cut(r.path, "*")
	if !wild {
		return path == r.path
	}
	return strings.HasPrefix(path, before) && strings.HasSuffix(path, after) && path != before+"lo"+after
}

// sysctlRules are the settings that have a check of their own, by its name.
func sysctlRules() map[string][]sysctlRule {
	zero := func(path string) sysctlRule { return sysctlRule{path: path} }
	one := func(path string) sysctlRule { return sysctlRule{path: path, min: 1, max: 1} }
	return map[string][]sysctlRule{
		"accept-redirects":      {zero("net/ipv4/conf/*/accept_redirects")},
		"accept-redirects-ipv6": {zero("net/ipv6/conf/*/accept_redirects")},
		"secure-redirects":      {zero("net/ipv4/conf/*/secure_redirects")},
		"send-redirects":        {zero("net/ipv4/conf/*/send_redirects")},
		"source-route": {zero("net/ipv4/conf/*/accept_source_route"),
			{path: "net/ipv6/conf/*/accept_source_route", min: -1, max: 0}},
		"icmp-broadcasts":   {one("net/ipv4/icmp_echo_ignore_broadcasts")},
		"icmp-bogus-errors": {one("net/ipv4/icmp_ignore_bogus_error_responses")},
		"rp-filter":         {{path: "net/ipv4/conf/*/rp_filter", min: 1, max: 2, maxWithAll: true}},
		"syncookies":        {one("net/ipv4/tcp_syncookies")},
		"forwarding": {zero("net/ipv4/ip_forward"), zero("net/ipv4/conf/*/forwarding"),
			zero("net/ipv6/conf/*/forwarding")},
	}
}

func sysctlChecks() []Check {
	rules := sysctlRules()
	check := func(name, title, why string, severity Severity) Check {
		return sysctlCheck(name, title, why, severity, rules[name]...)
	}
	const redirectWhy = "An ICMP redirect lets a neighbour take over the machine's traffic."
	return append([]Check{
		check("accept-redirects", "no interface accepts ICMP redirects (IPv4)", redirectWhy, High),
		check("accept-redirects-ipv6", "no interface accepts ICMP redirects (IPv6)", redirectWhy, High),
		check("secure-redirects", "no interface accepts ICMP redirects from its gateways", redirectWhy, Medium),
		check("send-redirects", "no interface sends ICMP redirects",
			"Only routers have a reason to, and this is none.", Medium),
		check("source-route", "packets that choose their own route are refused",
			"Source routing leads around filters.", Medium),
		check("icmp-broadcasts", "ICMP echoes to broadcast addresses are ignored",
			"Answering makes the machine an amplifier.", Medium),
		check("icmp-bogus-errors", "bogus ICMP errors are ignored", "They fill the log.", Low),
		check("rp-filter", "packets from impossible sources are dropped",
			"Without reverse path filtering a sender can pretend to be inside.", Medium),
		check("syncookies", "TCP SYN cookies are on",
			"A flood of half-open connections would keep real ones out.", Medium),
		check("forwarding", "the machine forwards no packets, on no interface",
			"It is no router, and as one it would lead around security groups.", Medium),
	}, wholeSysctlChecks()...)
}

func driverChecks() []Check {
	return []Check{
		bootCheck("drivers.xen", "the kernel has Xen's network driver, and the initrd its disk driver",
			"Without them the image does not boot on Xen flavors (s1, c1, c2, m1, d1, e1, h1).",
			drivers{disk: []string{"xen_blkfront"}, network: "xen_netfront"},
			drivers{disk: []string{"xen_vbd"}, network: "xen_vnif"}), // the classic ones of SLES up to 12 SP1
		bootCheck("drivers.virtio", "the kernel has virtio's network driver, and the initrd its disk drivers",
			"Without them the image does not boot on KVM flavors.",
			drivers{disk: []string{"virtio_pci", "virtio_blk", "virtio_scsi"}, network: "virtio_net"}),
		{
			ID: "drivers.ixgbevf", Severity: Medium, Needs: []string{"modules"},
			Title: "the kernel has the ixgbevf module",
			Why:   "The 10 Gbit/s flavors (d1, e1, e2, h1) pass virtual functions of an Intel 82599 through.",
			References: []string{"OTC image factory introduction: uvp-monitor and other drivers",
				"OTC image factory: flavor table"},
			Judge: func(f Facts, _ Params) Verdict {
				for _, l := range f.lines("modules") {
					if len(l) >= 2 && l[0] == "ixgbevf" {
						if l[1] == "missing" {
							return failed("a module", "none")
						}
						return Verdict{Status: Pass, Expected: "a module", Found: strings.Join(l[1:], " ")}
					}
				}
				return unknown("nothing was said about ixgbevf")
			},
		},
	}
}

// drivers are what a kernel needs on a hypervisor: those of the disk when it
// looks for the root file system, that of the network later.
type drivers struct {
	disk    []string // in the initrd or built in
	network string   // there, or a module
}

func (d drivers) missing(initrd, modules map[string]bool) []string {
	var missing []string
	for _, m := range d.disk {
		if !initrd[m] {
			missing = append(missing, m)
		}
	}
	if !initrd[d.network] && !modules[d.network] {
		missing = append(missing, d.network)
	}
	return missing
}

// bootCheck demands one of several sets of drivers.
func bootCheck(id, title, why string, anyOf ...drivers) Check {
	return Check{
		ID: id, Title: title, Why: why, Severity: High, Needs: []string{"initrd", "modules"},
		References: []string{"OTC image factory introduction: Configuration", "OTC image factory: flavor table"},
		Judge: func(f Facts, _ Params) Verdict {
			initrd, modules := map[string]bool{}, map[string]bool{}
			for _, l := range f.lines("initrd") {
				if len(l) == 2 && (l[0] == "initrd" || l[0] == "builtin") {
					initrd[strings.ReplaceAll(strings.TrimSuffix(l[1], ".ko"), "-", "_")] = true
				}
			}
			for _, l := range f.lines("modules") {
				if len(l) >= 2 && l[1] != "missing" {
					modules[l[0]] = true
				}
			}
			if len(initrd) == 0 {
				return unknown("no module is shown")
			}
			var expected, missing []string
			for _, d := range anyOf {
				expected = append(expected, fmt.Sprintf("%s (initrd), %s", strings.Join(d.disk, ", "), d.network))
				lacks := d.missing(initrd, modules)
				if len(lacks) == 0 {
					return passed(expected[len(expected)-1])
				}
				missing = append(missing, names(lacks))
			}
			return failed(strings.Join(expected, " or "), "without "+strings.Join(missing, " and without "))
		},
	}
}
