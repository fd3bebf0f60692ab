package testsuite

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Strict returns the profile "strict": the checks of OTC, and those of dev-sec's
// linux-baseline and ssh-baseline and of ssh-audit that ask more. An image that
// passes OTC may fail it: the factory's Debian 12 fails strict.sysctl (core dumps and
// pointers are restricted less than dev-sec wants, IPv6 takes router advertisements,
// kexec and users' BPF are as the kernel has them), strict.sshd-values (dev-sec
// wants shorter grace and alive times and fewer sessions) and strict.modules (file
// systems that a cloud machine does not use can be loaded). Each says by name what
// differs.
func Strict() Profile {
	p := OTC()
	p.Name = "strict"
	p.Checks = append(p.Checks, strictChecks()...)
	for i := range p.Checks {
		p.Checks[i].Group, _, _ = strings.Cut(p.Checks[i].ID, ".")
	}
	return p
}

// strictSysctls are the values of dev-sec's linux-baseline that are stricter than
// those of sysctl-hardening.tsv. A name that the kernel does not have is passed over.
var strictSysctls = map[string]demand{
	"kernel/kptr_restrict": "2", "kernel/core_uses_pid": "1", "kernel/kexec_load_disabled": "1",
	"kernel/unprivileged_bpf_disabled": "1 or 2", "kernel/yama/ptrace_scope": "1..3", "kernel/randomize_va_space": "2",
	"net/core/bpf_jit_harden": "2", "dev/tty/ldisc_autoload": "0", "vm/mmap_rnd_bits": "32", "vm/mmap_rnd_compat_bits": "16",
	"fs/protected_fifos": "1 or 2", "fs/protected_regular": "2", "net/ipv4/conf/*/log_martians": "1",
	"net/ipv4/conf/*/rp_filter": "1", "net/ipv4/conf/all/arp_ignore": "1 or 2", "net/ipv4/conf/all/arp_announce": "2",
	"net/ipv4/icmp_ratelimit": "100", "net/ipv4/icmp_ratemask": "88089", "net/ipv4/tcp_timestamps": "0",
	"net/ipv6/conf/default/accept_ra": "0", "net/ipv6/conf/default/autoconf": "0", "net/ipv6/conf/default/router_solicitations": "0",
	"net/ipv6/conf/default/accept_ra_rtr_pref": "0", "net/ipv6/conf/default/accept_ra_pinfo": "0",
	"net/ipv6/conf/default/accept_ra_defrtr": "0", "net/ipv6/conf/default/dad_transmits": "0", "net/ipv6/conf/default/max_addresses": "1",
}

// strictSSHD are the values of dev-sec's ssh-baseline, as sshd -T writes them.
var strictSSHD = map[string]demand{
	"logingracetime": "1..30", "maxauthtries": "1..2", "maxsessions": "1..10", "clientaliveinterval": "1..300", "clientalivecountmax": "0..3",
	"x11forwarding": "no", "allowtcpforwarding": "no", "allowagentforwarding": "no", "permittunnel": "no", "tcpkeepalive": "no",
	"compression": "no", "loglevel": "VERBOSE", "strictmodes": "yes", "ignorerhosts": "yes", "usedns": "no", "gatewayports": "no",
	"permituserenvironment": "no", "printmotd": "no", "printlastlog": "no",
}

// strictModules are file systems and protocols that dev-sec wants not to load.
var strictModules = []string{"cramfs", "freevxfs", "jffs2", "hfs", "hfsplus", "squashfs", "udf", "dccp", "sctp", "rds", "tipc"}

func strictChecks() []Check {
	return []Check{
		{
			ID: "strict.sysctl", Severity: Medium, Needs: []string{"sysctl"},
			Title: "the kernel's settings are dev-sec's", Why: "They close what a machine without special tasks does not use.",
			References: []string{"dev-sec linux-baseline: sysctl"},
			Judge: func(f Facts, _ Params) Verdict {
				return judgeDemands(f.settings(), strictSysctls, sysctlName)
			},
		},
		{
			ID: "strict.sshd-values", Severity: Medium, Needs: []string{"sshd-config"},
			Title: "sshd's limits and forwarding are dev-sec's", Why: "Sessions that idle and ports that are forwarded are ways in.",
			References: []string{"dev-sec ssh-baseline", "ssh-audit"},
			Judge: func(f Facts, _ Params) Verdict {
				got := map[string]string{}
				for key := range f.values("sshd-config") {
					got[key] = f.value("sshd-config", key)
				}
				return judgeDemands(got, strictSSHD, strings.ToLower)
			},
		},
		{
			ID: "strict.modules", Severity: Low, Needs: []string{"settings", "modules-loaded"},
			Title: "file systems and protocols that nobody uses cannot be loaded", Why: "Code that nobody needs has faults that somebody finds.",
			References: []string{"dev-sec linux-baseline: os-10, kernel modules"},
			Judge:      judgeStrictModules,
		},
	}
}

// judgeDemands holds values to a table; a name without a value is passed over.
func judgeDemands(got map[string]string, table map[string]demand, show func(string) string) Verdict {
	var wrong []string
	judged := 0
	for _, name := range slices.Sorted(maps.Keys(got)) {
		d, ok := lookup(table, name)
		if !ok || ofLoopback(name) {
			continue
		}
		judged++
		if !d.accepts(got[name]) {
			wrong = append(wrong, fmt.Sprintf("%s=%.60q, not %s", show(name), got[name], d))
		}
	}
	expected := fmt.Sprintf("the values of %d settings", len(table))
	switch {
	case judged == 0:
		return unknown("none of the settings is shown")
	case len(wrong) > 0:
		return failed(expected, first(wrong, 40))
	}
	return Verdict{Status: Pass, Expected: expected, Found: fmt.Sprintf("%d as wanted", judged)}
}

func judgeStrictModules(f Facts, _ Params) Verdict {
	if strings.HasPrefix(f.text("settings"), "no dpkg") {
		return skipped("the files of this distribution's packages are not told apart yet")
	}
	off := map[string]bool{}
	for _, file := range f.files("settings") {
		if !strings.Contains(file.name, "modprobe.d/") {
			continue
		}
		for _, line := range file.lines {
			w := strings.Fields(line)
			if len(w) == 3 && w[0] == "install" && (strings.HasSuffix(w[2], "/true") || strings.HasSuffix(w[2], "/false")) {
				off[w[1]] = true
			}
		}
	}
	var open []string
	for _, m := range strictModules {
		if !off[m] {
			open = append(open, m)
		}
	}
	return want("none can be loaded", cmpOr(names(open), "none can be loaded"))
}
