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
			ID: "security.apparmor", Severity: High, Needs: []string{"apparmor", "os-release"},
			Title:      "AppArmor is on and has profiles",
			Why:        "It is the distribution's confinement of services.",
			References: []string{"OTC image factory introduction: standard hardening measures"},
			Judge:      judgeAppArmor,
		},
		{
			ID: "system.failed-units", Severity: Medium, Needs: []string{"failed-units"},
			Title:      "no unit has failed, and the machine's start is done",
			Why:        "A fresh machine with failed units was not tried before.",
			References: []string{"OTC image factory introduction: generic quality requirements"},
			Judge:      judgeFailedUnits,
		},
	}
}

// judgeFailedUnits takes "running" from the service manager itself: an empty list of
// failed units alone says nothing.
func judgeFailedUnits(f Facts, _ Params) Verdict {
	var bad []string
	state := ""
	for _, l := range f.lines("failed-units") {
		switch {
		case l[0] == "manager" && len(l) == 2:
			state = l[1]
		case l[0] == "job" && len(l) > 2: // what waits; the state tells whether that matters
		default:
			bad = append(bad, strings.TrimPrefix(l[0], "●"))
		}
	}
	switch {
	case len(bad) > 0:
		return failed("none", first(bad, 20))
	case state == "":
		return unknown("the service manager does not tell its state")
	case state != "running":
		return failed("none", fmt.Sprintf("the machine is %.20s", state))
	}
	return want("none", "none")
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
		// chronyd may read any file: it is chrony's where it is no other's.
		other := strings.Contains(file.name, "/timesyncd") || strings.Contains(file.name, "/ntp.conf")
		if part == "/chrony" && other || part != "/chrony" && !strings.Contains(file.name, part) {
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
	const expected = "enabled, among the security modules, with profiles"
	enabled, lsm, profiles := f.value("apparmor", "enabled"), f.value("apparmor", "lsm"), f.value("apparmor", "profiles")
	found := fmt.Sprintf("enabled %s, security modules %s, %s profiles", enabled, lsm, profiles)
	if enabled != "Y" || !slices.Contains(strings.Split(lsm, ","), "apparmor") || profiles == "" || profiles == "0" {
		return failed(expected, found)
	}
	return Verdict{Status: Pass, Expected: expected, Found: found}
}
