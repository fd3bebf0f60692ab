package testsuite

import (
	"fmt"
	"slices"
	"strings"
)

func serviceChecks() []Check {
	return []Check{
		{
			ID: "ntp.servers", Severity: Medium, Needs: []string{"ntp-config", "services"},
			Title:      "the image's time servers are configured, and no others",
			Why:        "A wrong clock makes certificates invalid; foreign servers cannot be reached from every network.",
			References: []string{"OTC image factory introduction: preconfigured to use a local NTP time source"},
			Judge:      judgeNTPServers,
		},
		{
			ID: "ntp.running", Severity: Medium, Needs: []string{"services"},
			Title:      "exactly one time daemon runs and starts at boot",
			Why:        "Two daemons fight over the clock, none lets it drift.",
			References: []string{"OTC image factory introduction: preconfigured to use a local NTP time source"},
			Judge:      judgeNTPRunning,
		},
		{
			ID: "entropy.rng-tools", Severity: Medium, Needs: []string{"packages"},
			Title:      "rng-tools is installed",
			Why:        "Good random numbers are scarce in virtual machines.",
			References: []string{"OTC image factory introduction: rng-tools installed in our public images"},
			Judge: func(f Facts, _ Params) Verdict {
				for _, name := range []string{"rng-tools5", "rng-tools", "rng-tools-debian"} {
					if f.packages()[name] {
						return Verdict{Status: Pass, Expected: "a package rng-tools*", Found: name}
					}
				}
				return failed("a package rng-tools*", "none")
			},
		},
		{
			ID: "entropy.rngd", Severity: Medium, Needs: []string{"services", "processes"},
			Title:      "rngd runs and starts at boot",
			Why:        "It feeds the hardware's random numbers to the kernel.",
			References: []string{"OTC image factory introduction: rng-tools installed in our public images"},
			Judge:      judgeRngd,
		},
		{
			ID: "uvp.monitor", Severity: Medium, Needs: []string{"packages", "services", "processes"},
			Title:      "uvp-monitor is as the definition wants it",
			Why:        "The platform's monitoring, hot-add and live migration of Xen machines use it.",
			References: []string{"OTC image factory introduction: uvp-monitor and other drivers"},
			Judge:      judgeUVP,
		},
		{
			ID: "security.apparmor", Severity: High, Needs: []string{"apparmor", "os-release"},
			Title:      "AppArmor is on and has profiles, each of which enforces",
			Why:        "It is the distribution's confinement of services.",
			References: []string{"OTC image factory introduction: standard hardening measures"},
			Judge:      judgeAppArmor,
		},
		{
			ID: "system.failed-units", Severity: Medium, Needs: []string{"failed-units"},
			Title:      "no unit has failed",
			Why:        "A fresh machine with failed units was not tried before.",
			References: []string{"OTC image factory introduction: generic quality requirements"},
			Judge: func(f Facts, _ Params) Verdict {
				var bad []string
				for _, l := range f.lines("failed-units") {
					bad = append(bad, l[0])
				}
				return want("none", cmpOr(names(bad), "none"))
			},
		},
	}
}

// timeDaemons are the families of time daemons: their units, and how their
// configuration names servers.
var timeDaemons = []struct {
	name  string
	units []string
	files string // part of the names of its files
	keys  []string
}{
	{"chrony", []string{"chrony.service", "chronyd.service"}, "/chrony", []string{"server", "pool", "peer"}},
	{"ntp", []string{"ntp.service", "ntpd.service", "ntpsec.service"}, "/ntp", []string{"server", "pool", "peer"}},
	{"systemd-timesyncd", []string{"systemd-timesyncd.service"}, "/timesyncd", []string{"NTP", "FallbackNTP"}},
}

func judgeNTPServers(f Facts, p Params) Verdict {
	if len(p.NTPServers) == 0 {
		return unknown("the definition names no time servers")
	}
	units, files := f.units(), f.files("ntp-config")
	var configured []string
	for _, onlyActive := range []bool{true, false} {
		for _, d := range timeDaemons {
			u, ok := firstUnit(units, d.units...)
			if !ok || onlyActive && !u.active() {
				continue
			}
			configured = append(configured, ntpServers(files, d.files, d.keys)...)
		}
		if len(configured) > 0 {
			break // an idle daemon's configuration counts only where none is active
		}
	}
	v := want(names(p.NTPServers), cmpOr(names(configured), "none"))
	return v
}

func ntpServers(files []namedFile, part string, keys []string) []string {
	var out []string
	for _, file := range files {
		if !strings.Contains(file.name, part) {
			continue
		}
		for _, line := range file.lines {
			if key, list, ok := strings.Cut(line, "="); ok { // timesyncd
				if slices.Contains(keys, strings.TrimSpace(key)) {
					out = append(out, strings.Fields(list)...)
				}
				continue
			}
			w := strings.Fields(line)
			for len(w) > 2 && (w[1] == "-4" || w[1] == "-6") {
				w = slices.Delete(w, 1, 2)
			}
			if len(w) >= 2 && slices.Contains(keys, strings.ToLower(w[0])) && !strings.HasPrefix(w[1], "127.127.") {
				out = append(out, w[1])
			}
		}
	}
	return out
}

func judgeNTPRunning(f Facts, _ Params) Verdict {
	const expected = "one time daemon, active and enabled"
	units := f.units()
	var found, good []string
	for _, d := range timeDaemons {
		u, ok := firstUnit(units, d.units...)
		if !ok || !u.active() && !u.starts() {
			continue
		}
		found = append(found, u.String())
		if u.active() && u.starts() {
			good = append(good, d.name)
		}
	}
	if len(found) != 1 || len(good) != 1 {
		return failed(expected, cmpOr(names(found), "none"))
	}
	return Verdict{Status: Pass, Expected: expected, Found: names(found)}
}

func judgeRngd(f Facts, _ Params) Verdict {
	const expected = "rngd's unit active and enabled, and its process"
	u, ok := firstUnit(f.units(), "rngd.service", "rng-tools.service", "rng-tools-debian.service", "rng-tools5.service")
	if !ok {
		return failed(expected, "no such unit")
	}
	n := countProcesses(f, "rngd")
	found := fmt.Sprintf("%s, %d processes", u, n)
	if !u.active() || !u.starts() || n == 0 {
		return failed(expected, found)
	}
	return Verdict{Status: Pass, Expected: expected, Found: found}
}

func countProcesses(f Facts, name string) int {
	n := 0
	for _, l := range f.lines("processes") {
		if len(l) >= 2 && l[1] == name {
			n++
		}
	}
	return n
}

func judgeUVP(f Facts, p Params) Verdict {
	u := f.units()["uvp-monitor.service"]
	installed := f.packages()["uvp-monitor"] || u != nil
	n := countProcesses(f, "uvp-monitor")
	found := "not installed"
	if installed || n > 0 {
		found = fmt.Sprintf("installed, %d processes", n)
	}
	reason := cmpOr(p.UVPMonitor.Reason, "the definition gives no reason")
	switch p.UVPMonitor.State {
	case UVPOptional:
		return Verdict{Status: Skipped, Reason: "optional: " + reason, Found: found}
	case UVPForbidden:
		return want("not installed", found)
	case UVPRequired, "":
		const expected = "installed, running and enabled"
		if !installed || n == 0 || u != nil && !u.starts() {
			return failed(expected, found)
		}
		return Verdict{Status: Pass, Expected: expected, Found: found}
	}
	return unknown("the definition's uvp-monitor state %q is none of required, optional, forbidden", p.UVPMonitor.State)
}

// osIDs returns ID and ID_LIKE of os-release(5).
func osIDs(f Facts) []string {
	var out []string
	for line := range strings.Lines(f.text("os-release")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key == "ID" || key == "ID_LIKE" {
			out = append(out, strings.Fields(strings.Trim(value, `"'`))...)
		}
	}
	return out
}

func judgeAppArmor(f Facts, _ Params) Verdict {
	for _, id := range osIDs(f) {
		if slices.Contains([]string{"rhel", "fedora", "centos", "ol", "euleros", "openEuler"}, id) {
			return skipped("this distribution confines by SELinux")
		}
	}
	const expected = "enabled, among the security modules, with profiles that enforce"
	enabled, lsm, profiles := f.value("apparmor", "enabled"), f.value("apparmor", "lsm"), f.value("apparmor", "profiles")
	found := fmt.Sprintf("enabled %s, security modules %s, %s profiles", enabled, lsm, profiles)
	lenient := f.values("apparmor")["lenient"]
	if len(lenient) > 0 {
		found += ", lenient: " + names(lenient)
	}
	if len(lenient) > 0 || enabled != "Y" || !slices.Contains(strings.Split(lsm, ","), "apparmor") || profiles == "" || profiles == "0" {
		return failed(expected, found)
	}
	return Verdict{Status: Pass, Expected: expected, Found: found}
}

func networkChecks() []Check {
	const ref = "OTC image factory introduction: sshd is the only network facing service enabled by default"
	return []Check{
		{
			ID: "net.listeners-tcp", Severity: Critical, Needs: []string{"sockets"}, References: []string{ref},
			Title: "only sshd listens on TCP beyond loopback",
			Why:   "Every other service can be attacked.",
			Judge: func(f Facts, _ Params) Verdict {
				return judgeListeners(f, "tcp", "sshd on port 22", func(l listener) bool {
					// With socket activation systemd holds the port for sshd.
					return l.port == "22" && (l.process == "sshd" || l.process == "systemd")
				})
			},
		},
		{
			ID: "net.listeners-udp", Severity: High, Needs: []string{"sockets"}, References: []string{ref},
			Title: "only the DHCP client receives UDP beyond loopback",
			Why:   "Every other service can be attacked.",
			Judge: func(f Facts, _ Params) Verdict {
				return judgeListeners(f, "udp", "a DHCP client on port 68 or 546, or none", func(l listener) bool {
					clients := []string{"systemd-network", "dhclient", "dhcpcd", "NetworkManager", "wickedd-dhcp4", "wickedd-dhcp6"}
					return (l.port == "68" || l.port == "546") && slices.Contains(clients, l.process)
				})
			},
		},
		{
			ID: "net.dhcp", Severity: High, Needs: []string{"network"},
			Title:      "the network is configured by cloud-init, its address comes by DHCP",
			Why:        "A machine must get its address wherever it starts.",
			References: []string{"OTC image factory introduction: cloud-init"},
			Judge:      judgeDHCP,
		},
	}
}

func judgeListeners(f Facts, protocol, expected string, allowed func(listener) bool) Verdict {
	var good, bad []string
	for _, l := range f.listeners() {
		switch {
		case l.protocol != protocol || l.loopback():
		case allowed(l):
			good = append(good, l.String())
		default:
			bad = append(bad, l.String())
		}
	}
	switch {
	case len(bad) > 0:
		return failed(expected, "also "+names(bad))
	case protocol == "tcp" && len(good) == 0:
		return unknown("no listening sshd is shown, although it was reached")
	}
	return Verdict{Status: Pass, Expected: expected, Found: cmpOr(names(good), "none")}
}

func judgeDHCP(f Facts, _ Params) Verdict {
	const expected = "a dynamic address, and a configuration that cloud-init rendered"
	var dynamic, rendered []string
	for _, l := range f.lines("network") {
		switch {
		case l[0] == "rendered" && len(l) == 2:
			rendered = append(rendered, l[1])
		case len(l) > 3 && (l[2] == "inet" || l[2] == "inet6") && slices.Contains(l, "dynamic"):
			dynamic = append(dynamic, l[1]+" "+l[3])
		}
	}
	found := fmt.Sprintf("address %s, configuration %s", cmpOr(names(dynamic), "not dynamic"), cmpOr(names(rendered), "not cloud-init's"))
	if len(dynamic) == 0 || len(rendered) == 0 {
		return failed(expected, found)
	}
	return Verdict{Status: Pass, Expected: expected, Found: found}
}
