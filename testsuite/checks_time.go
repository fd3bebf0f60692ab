package testsuite

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// chronyDirectives are what chrony's configuration may say beside its servers: a
// directive and its values, nil for any. Directives that make it serve, believe a
// clock of its own, run a program or read other files fail by name.
var chronyDirectives = map[string][]string{
	"confdir": {"/etc/chrony/conf.d", "/etc/chrony.d"}, "sourcedir": {"/etc/chrony/sources.d"},
	"include": {"/etc/chrony.d/*.conf"}, "keyfile": {"/etc/chrony/chrony.keys", "/etc/chrony.keys"},
	"driftfile": {"/var/lib/chrony/chrony.drift", "/var/lib/chrony/drift"}, "ntsdumpdir": {"/var/lib/chrony"},
	"logdir": {"/var/log/chrony"}, "log": nil, "dumpdir": {"/var/lib/chrony", "/run/chrony", "/var/run/chrony"},
	"maxupdateskew": nil, "rtcsync": {""}, "leapsectz": {"right/UTC"}, "makestep": {"1 3", "1.0 3", "1 -1", "0.1 3"},
	"port": {"0"}, "cmdport": {"0", "323"}, "bindcmdaddress": {"127.0.0.1", "::1", "/run/chrony/chronyd.sock"},
	"commandkey": {"1"}, "generatecommandkey": {""}, "noclientlog": {""}, "logchange": nil, "stratumweight": {"0"}, "minsources": nil,
}

// serverOptions are what may follow a server: how often it is asked.
var serverOptions = []string{"iburst", "burst", "minpoll", "maxpoll", "prefer", "offline", "auto_offline", "polltarget"}

func judgeTimeConfiguration(f Facts, _ Params) Verdict {
	const expected = "servers with plain options, and directives that only keep time"
	files := f.files("ntp-config")
	var bad []string
	lines := 0
	for _, file := range files {
		for _, line := range file.lines {
			lines++
			w := strings.Fields(line)
			key, rest := strings.ToLower(w[0]), strings.Join(w[1:], " ")
			wrong := false
			switch {
			case strings.Contains(file.name, "/timesyncd") || strings.Contains(file.name, "/ntp"):
				wrong = strings.HasPrefix(key, "allow") || key == "includefile" || key == "fudge" || key == "unrestrict"
			case slices.Contains([]string{"server", "pool", "peer"}, key):
				for i, o := range w[min(2, len(w)):] {
					number := strings.Trim(o, "-0123456789") == ""
					wrong = wrong || !number && !slices.Contains(serverOptions, strings.ToLower(o)) || number && i == 0
				}
			default:
				values, ok := chronyDirectives[key]
				wrong = !ok || values != nil && !slices.Contains(values, rest)
			}
			if wrong {
				bad = append(bad, fmt.Sprintf("%s: %.100q", file.name, line))
			}
		}
	}
	switch {
	case len(bad) > 0:
		return failed(expected, first(bad, 20))
	case lines == 0:
		return failed(expected, "no configuration")
	}
	return Verdict{Status: Pass, Expected: expected, Found: fmt.Sprintf("%d lines of %d files", lines, len(files))}
}

// timePrograms are the daemons' executables, arguments that change nothing about
// where time comes from, and unit files.
var timePrograms = map[string]struct {
	paths, arguments []string
	units            []string
}{
	"chronyd": {[]string{"/usr/sbin/chronyd"}, []string{"-F", "0", "1", "2", "-n", "-d", "-4", "-6", "-u", "chrony", "_chrony"},
		[]string{"chrony.service", "chronyd.service"}},
	"ntpd": {[]string{"/usr/sbin/ntpd"}, []string{"-p", "/run/ntpd.pid", "/var/run/ntpd.pid", "-g", "-u", "ntp:ntp", "ntpsec:ntpsec", "-n", "-N", "-c", "/etc/ntpsec/ntp.conf", "/run/ntp.conf"},
		[]string{"ntp.service", "ntpd.service", "ntpsec.service"}},
	"systemd-timesyn": {[]string{"/lib/systemd/systemd-timesyncd", "/usr/lib/systemd/systemd-timesyncd"}, nil, []string{"systemd-timesyncd.service"}},
	"rngd": {[]string{"/usr/sbin/rngd", "/sbin/rngd"}, []string{"-f", "--foreground", "-r", "/dev/hwrng"},
		[]string{"rngd.service", "rng-tools.service", "rng-tools-debian.service", "rng-tools5.service"}},
}

// programFaults are what is wrong about how programs of timePrograms run, and how
// many processes of them there are.
func programFaults(f Facts, names ...string) (bad []string, n int) {
	units := map[string]bool{}
	for _, name := range names {
		for _, u := range timePrograms[name].units {
			units[u] = true
		}
	}
	for _, l := range f.lines("time") {
		if len(l) < 3 {
			continue
		}
		program, known := timePrograms[l[1]]
		switch {
		case l[0] == "daemon" && slices.Contains(names, l[1]):
			n++
			if len(l) < 4 || !known || !slices.Contains(program.paths, l[3]) {
				bad = append(bad, fmt.Sprintf("%s is %.120q", l[1], strings.Join(l[3:], " ")))
			}
			if l[1] == "chronyd" && len(l) > 4 && strings.HasSuffix(l[4], "unconfined") && f.value("apparmor", "enabled") == "Y" {
				bad = append(bad, "chronyd is not confined by AppArmor")
			}
		case l[0] == "arguments" && slices.Contains(names, l[1]):
			if extra := without(l[min(3, len(l)):], program.arguments); len(extra) > 0 || !slices.Contains(program.paths, l[2]) {
				bad = append(bad, fmt.Sprintf("started as %.150q", strings.Join(l[2:], " ")))
			}
		case l[0] == "unit" && units[l[1]] && !strings.HasPrefix(l[2], "/lib/systemd/system/") && !strings.HasPrefix(l[2], "/usr/lib/systemd/system/"):
			bad = append(bad, fmt.Sprintf("its unit is %.120s", l[2]))
		case l[0] == "dropins" && units[l[1]]:
			bad = append(bad, fmt.Sprintf("its unit is changed by %.200s", strings.Join(l[2:], " ")))
		}
	}
	return bad, n
}

func judgeTimeDaemon(f Facts, _ Params) Verdict {
	const expected = "the package's daemon, arguments and unit"
	bad, n := programFaults(f, "chronyd", "ntpd", "systemd-timesyn")
	switch {
	case !timeEnded(f):
		return unknown("the time daemon was not looked at to the end")
	case n == 0:
		return failed(expected, "no process of one")
	case len(bad) > 0:
		return failed(expected, first(bad, 20))
	}
	return passed(expected)
}

func timeEnded(f Facts) bool { return strings.HasSuffix(strings.TrimSpace(f.text("time")), "\nend") }

func judgeTimeSources(f Facts, p Params) Verdict {
	if len(p.NTPServers) == 0 {
		return unknown("the definition names no time servers")
	}
	if !timeEnded(f) {
		return unknown("the time daemon was not looked at to the end")
	}
	got := f.values("time")
	var bad []string
	for _, key := range []string{"source", "dhcp-ntp"} {
		for _, s := range without(got[key], p.NTPServers) {
			bad = append(bad, fmt.Sprintf("%s %.80q", key, s))
		}
	}
	for _, l := range got["timesyncd"] {
		if _, servers, ok := strings.Cut(l, "="); ok {
			for _, s := range without(strings.Fields(servers), p.NTPServers) {
				bad = append(bad, fmt.Sprintf("%.80q", s))
			}
		}
	}
	if n := f.value("time", "activity"); n != "" && n != fmt.Sprint(len(p.NTPServers)) {
		bad = append(bad, fmt.Sprintf("chronyd uses %.20s sources", n))
	}
	expected := fmt.Sprintf("%d sources, none but %s", len(p.NTPServers), names(p.NTPServers))
	if len(bad) > 0 {
		return failed(expected, first(bad, 20))
	}
	return Verdict{Status: Pass, Expected: expected, Found: cmpOr(names(got["source"]), "no server answered yet")}
}

// hostsNames are names of the machine itself and of its links.
var hostsNames = []string{"localhost", "localhost.localdomain", "localhost4", "localhost4.localdomain4", "localhost6",
	"localhost6.localdomain6", "ip6-localhost", "ip6-loopback", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts",
	"ip6-localnet", "ip6-mcastprefix", "ipv6-localhost", "ipv6-loopback", "ipv6-localnet", "ipv6-mcastprefix",
	"ipv6-allnodes", "ipv6-allrouters", "ipv6-allhosts"}

// part is the lines of one file of a fact.
func part(files []namedFile, name string) []string {
	for _, f := range files {
		if f.name == name {
			return f.lines
		}
	}
	return nil
}

func resolverFiles(f Facts) ([]namedFile, bool) {
	files := f.files("resolver")
	return files, len(files) > 0 && files[len(files)-1].name == "end"
}

func judgeHosts(f Facts, p Params) Verdict {
	files, ok := resolverFiles(f)
	hosts := part(files, "/etc/hosts")
	if !ok || len(hosts) == 0 {
		return unknown("/etc/hosts was not read")
	}
	own := slices.Clone(hostsNames)
	for _, h := range []string{p.Hostname, f.value("hostname", "kernel")} {
		short, _, _ := strings.Cut(h, ".")
		own = append(own, h, short)
	}
	var bad []string
	for _, line := range hosts {
		line, _, _ = strings.Cut(line, "#")
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		addr, err := netip.ParseAddr(w[0])
		local := err == nil && (addr.IsLoopback() || addr.IsMulticast() || w[0] == "fe00::0" || w[0] == "fe00::" || w[0] == "ff00::0")
		for _, name := range w[1:] {
			// cloud-init may give the host name a domain of the data source.
			mine := slices.Contains(own, name) || p.Hostname != "" && strings.HasPrefix(name, p.Hostname+".")
			if !local || !mine {
				bad = append(bad, fmt.Sprintf("%.60s %.80s", w[0], name))
			}
		}
	}
	const expected = "the machine's own names, at its own addresses"
	if len(bad) > 0 {
		return failed(expected, first(bad, 20))
	}
	return Verdict{Status: Pass, Expected: expected, Found: fmt.Sprintf("%d lines", len(hosts))}
}

// resolvedSettings are those of systemd-resolved that send no question elsewhere.
var resolvedSettings = []string{"[Resolve]", "LLMNR=no", "MulticastDNS=no", "DNSSEC=no", "DNSSEC=yes", "DNSSEC=allow-downgrade",
	"Cache=yes", "DNSStubListener=yes", "ReadEtcHosts=yes", "FallbackDNS=", "DNS=", "Domains="}

func judgeResolver(f Facts, _ Params) Verdict {
	files, ok := resolverFiles(f)
	if !ok {
		return unknown("the resolver was not looked at to the end")
	}
	var bad []string
	given := strings.FieldsFunc(strings.Join(part(files, "leases"), " "), func(r rune) bool { return r == ' ' || r == ',' })
	for _, line := range part(files, "announced") {
		given = append(given, addressOf(line))
	}
	stub := append([]string{"127.0.0.53", "127.0.0.54", "127.0.0.1"}, given...)
	for _, file := range files {
		for _, line := range file.lines {
			w := strings.Fields(line)
			good := true
			switch {
			case file.name == "/etc/resolv.conf":
				good = w[0] == "nameserver" && len(w) == 2 && slices.Contains(stub, w[1]) || w[0] == "search" || w[0] == "domain" ||
					w[0] == "options" && len(without(w[1:], []string{"edns0", "trust-ad", "rotate", "timeout:1", "timeout:2", "attempts:2", "single-request-reopen"})) == 0
			case file.name == "/etc/host.conf":
				good = line == "multi on" || strings.HasPrefix(line, "order hosts,bind")
			case file.name == "/etc/gai.conf":
				good = false
			case file.name == "/etc/nsswitch.conf":
				good = w[0] != "hosts:" || len(without(w[1:], []string{"files", "dns", "myhostname", "resolve", "[!UNAVAIL=return]", "mymachines"})) == 0
			case strings.Contains(file.name, "/resolved.conf"):
				good = slices.Contains(resolvedSettings, strings.TrimSpace(line))
			case file.name == "uplinks":
				_, servers, _ := strings.Cut(line, ":")
				for _, s := range without(strings.Fields(servers), given) {
					// A server, perhaps with a port and a name; or "~", a domain of all names.
					_, err := netip.ParseAddr(strings.SplitN(strings.ReplaceAll(s, "%", "#"), "#", 2)[0])
					good = good && err != nil && !strings.HasPrefix(s, "~")
				}
			}
			if !good {
				bad = append(bad, fmt.Sprintf("%s: %.100q", file.name, line))
			}
		}
	}
	const expected = "the distribution's resolver, asking what DHCP and routers gave"
	if len(bad) > 0 {
		return failed(expected, first(bad, 20))
	}
	return Verdict{Status: Pass, Expected: expected, Found: cmpOr(strings.Join(given, ", "), "DHCP gave none")}
}

// addressOf reads the bytes of an address, "192,0,2,1"; it is "" if they are none.
func addressOf(bytes string) string {
	var b []byte
	for s := range strings.SplitSeq(bytes, ",") {
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil {
			return ""
		}
		b = append(b, byte(n))
	}
	addr, ok := netip.AddrFromSlice(b)
	if !ok {
		return ""
	}
	return addr.String()
}

func judgeEntropySource(f Facts, _ Params) Verdict {
	const expected = "rngd of its package feeds the kernel from its generator"
	if !timeEnded(f) {
		return unknown("rngd was not looked at to the end")
	}
	bad, n := programFaults(f, "rngd")
	opens := f.values("time")["rngd-opens"]
	generator := f.value("time", "hwrng")
	if n == 0 {
		bad = append(bad, "no process of rngd")
	} else if !slices.Contains(opens, "/dev/random") {
		bad = append(bad, "it does not feed /dev/random")
	}
	for _, dev := range without(opens, []string{"/dev/null", "/dev/hwrng", "/dev/random", "/dev/tpm0", "/dev/log", "/dev/console"}) {
		bad = append(bad, fmt.Sprintf("it reads %.80q", dev))
	}
	if slices.Contains(opens, "/dev/hwrng") && (generator == "none" || generator == "absent" || generator == "") {
		bad = append(bad, "/dev/hwrng has no generator")
	}
	if seed := f.value("time", "seed"); seed != "" && seed != "600 root regular file" {
		bad = append(bad, fmt.Sprintf("the random seed is %.80q", seed))
	}
	if len(bad) > 0 {
		return failed(expected, first(bad, 20))
	}
	return Verdict{Status: Pass, Expected: expected, Found: cmpOr(generator, "no generator") + ", rngd reads " + names(opens)}
}

func judgeClock(f Facts, _ Params) Verdict {
	const expected = "zone UTC, the hardware clock in UTC"
	zone, rtc := f.value("time", "zone"), f.value("time", "rtc")
	found := fmt.Sprintf("zone %.80s, the hardware clock in %.20s", strings.TrimPrefix(zone, "/usr/share/zoneinfo/"), cmpOr(rtc, "UTC"))
	zones := []string{"/usr/share/zoneinfo/Etc/UTC", "/usr/share/zoneinfo/UTC", "/usr/share/zoneinfo/Etc/UCT", "/usr/share/zoneinfo/Universal", "/usr/share/zoneinfo/Zulu", "/etc/localtime"}
	if !slices.Contains(zones, zone) || rtc != "" && rtc != "UTC" {
		return failed(expected, found)
	}
	return Verdict{Status: Pass, Expected: expected, Found: found}
}

func timeChecks() []Check {
	refs := []string{"OTC image factory introduction: preconfigured to use a local NTP time source"}
	return []Check{
		{ID: "ntp.configuration", Severity: Medium, Needs: []string{"ntp-config"}, References: refs, Judge: judgeTimeConfiguration,
			Title: "the time daemon's configuration does nothing but ask its servers",
			Why:   "It could serve others, run commands, or believe a clock that somebody else sets."},
		{ID: "ntp.daemon", Severity: High, Needs: []string{"time", "apparmor"}, References: refs, Judge: judgeTimeDaemon,
			Title: "the time daemon is its package's, started as the package says",
			Why:   "Another file or configuration than the one that was looked at would set the clock."},
		{ID: "ntp.sources", Severity: High, Needs: []string{"time"}, References: refs, Judge: judgeTimeSources,
			Title: "the running time daemon uses the image's servers, and nothing that DHCP gave",
			Why:   "Who gives the time makes expired certificates valid."},
		{ID: "dns.hosts", Severity: High, Needs: []string{"resolver", "hostname"}, References: refs, Judge: judgeHosts,
			Title: "/etc/hosts names the machine itself and nobody else",
			Why:   "An entry leads time servers or repositories elsewhere."},
		{ID: "dns.resolver", Severity: High, Needs: []string{"resolver"}, References: refs, Judge: judgeResolver,
			Title: "names are resolved by the distribution's resolver, at the servers that DHCP gave",
			Why:   "A foreign resolver decides whom the machine speaks to."},
		{ID: "entropy.source", Severity: Medium, Needs: []string{"time", "apparmor"}, Judge: judgeEntropySource,
			References: []string{"OTC image factory introduction: rng-tools installed in our public images"},
			Title:      "rngd feeds the kernel from the machine's generator",
			Why:        "A file in the generator's place gives everybody the same keys."},
		{ID: "system.clock", Severity: Low, Needs: []string{"time"}, References: refs, Judge: judgeClock,
			Title: "the clock runs in UTC",
			Why:   "Logs of several machines are compared by their times."},
		{ID: "system.journal", Severity: Medium, Needs: []string{"time"},
			References: []string{"dev-sec linux-baseline", "OTC image factory introduction: generic quality requirements"},
			Title:      "the journal outlives a reboot",
			Why:        "What happened before the reboot is what one wants to read.",
			Judge:      func(f Facts, _ Params) Verdict { return want("persistent", f.value("time", "journal")) }},
	}
}
