package testsuite

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// judgeSSHDRunning looks at the processes: one or more listen (none where systemd
// listens for sshd), and all others are children of one that does or of systemd.
func judgeSSHDRunning(f Facts, _ Params) Verdict {
	const expected = "/usr/sbin/sshd -D"
	var bad, good []string
	for line := range strings.Lines(f.text("sshd-processes")) {
		process, title, ok := strings.Cut(strings.TrimRight(line, "\n"), "|")
		fields := strings.Fields(process)
		if !ok || len(fields) < 3 {
			bad = append(bad, "unreadable: "+oneLine(line))
			continue
		}
		exe := strings.Join(fields[2:], " ")
		if !slices.Contains(sshdPrograms, exe) {
			bad = append(bad, fmt.Sprintf("process %s is %s", fields[0], exe))
			continue
		}
		title = strings.TrimSpace(strings.TrimPrefix(title, "sshd: "))
		started, _, listens := strings.Cut(title, "[listener]")
		if !listens && !strings.HasPrefix(title, "/") {
			continue // a session: "linux [priv]", "linux@notty"
		}
		if started = strings.Join(strings.Fields(started), " "); started != expected {
			bad = append(bad, "started as "+started)
			continue
		}
		good = append(good, started)
	}
	switch {
	case len(bad) > 0:
		return failed(expected, names(bad))
	case f.text("sshd-processes") == "":
		return unknown("no sshd is shown, although it was reached")
	}
	return Verdict{Status: Pass, Expected: expected, Found: cmpOr(names(good), "systemd starts it for each connection")}
}

// sshdPrograms are the executables of sshd: OpenSSH 9.8 has a program of its own
// for sessions, and 10.0 one for the login.
var sshdPrograms = []string{
	"/usr/sbin/sshd",
	"/usr/lib/openssh/sshd-session", "/usr/libexec/openssh/sshd-session", "/usr/lib/ssh/sshd-session",
	"/usr/lib/openssh/sshd-auth", "/usr/libexec/openssh/sshd-auth", "/usr/lib/ssh/sshd-auth",
}

// sshdKeySources are the options that say whose keys open the machine. The first
// value is the default.
var sshdKeySources = map[string][]string{
	"authorizedkeysfile":              {".ssh/authorized_keys .ssh/authorized_keys2", ".ssh/authorized_keys", "%h/.ssh/authorized_keys"},
	"authorizedkeyscommand":           {"none"},
	"authorizedkeyscommanduser":       {"none"},
	"trustedusercakeys":               {"none"},
	"authorizedprincipalsfile":        {"none"},
	"authorizedprincipalscommand":     {"none"},
	"authorizedprincipalscommanduser": {"none"},
	"hostkeyagent":                    {"none"},
}

func judgeSSHDKeySources(f Facts, _ Params) Verdict {
	if f.value("sshd-config", "authorizedkeysfile") == "" {
		return unknown("sshd -T does not show AuthorizedKeysFile")
	}
	var bad []string
	for _, view := range f.sshdViews() {
		for key, allowed := range sshdKeySources {
			for _, v := range view.values[key] {
				if !slices.Contains(allowed, v) {
					bad = append(bad, fmt.Sprintf("%s %s for %s", key, v, view.who))
				}
			}
		}
	}
	return want("~/.ssh/authorized_keys only", cmpOr(names(bad), "~/.ssh/authorized_keys only"))
}

// sshdJudged are the options that checks of their own judge.
var sshdJudged = []string{
	"passwordauthentication", "kbdinteractiveauthentication", "challengeresponseauthentication", "permitemptypasswords",
	"permitrootlogin", "pubkeyauthentication", "hostbasedauthentication", "kexalgorithms", "ciphers", "macs",
	"hostkeyalgorithms", "pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes",
}

// An allowed value of an option of sshd.
type sshdValue func(string) bool

func oneOf(values ...string) sshdValue {
	return func(v string) bool { return slices.Contains(values, v) }
}

func anyValue(string) bool { return true }

func atMost(most int) sshdValue {
	return func(v string) bool {
		n, err := strconv.Atoi(v)
		return err == nil && n > 0 && n <= most
	}
}

func listOf(good []string) sshdValue {
	return func(v string) bool { return v == "" || len(without(strings.Split(v, ","), good)) == 0 }
}

func matches(pattern string) sshdValue {
	re := regexp.MustCompile("^(" + pattern + ")$")
	return re.MatchString
}

// sshdOptions says of every option that sshd -T of OpenSSH 5.3 to 10 shows,
// with the patches of Debian, Red Hat and SUSE, which values do no harm. One that
// is not here is not known to do none.
var sshdOptions = map[string]sshdValue{
	// Where it listens.
	"port": oneOf("22"), "addressfamily": oneOf("any", "inet", "inet6"),
	"listenaddress": matches(`(0\.0\.0\.0|\[?::\]?):22( rdomain none)?`), "rdomain": oneOf("none"),
	// Who gets in, and when it gives up.
	"usepam": oneOf("yes"), "strictmodes": oneOf("yes"), "protocol": oneOf("2"),
	"logingracetime": atMost(120), "maxauthtries": atMost(6), "maxsessions": atMost(10), "maxstartups": anyValue,
	"persourcemaxstartups": anyValue, "persourcenetblocksize": anyValue, "persourcepenalties": anyValue, "persourcepenaltyexemptlist": oneOf("none"),
	"requiredrsasize": func(v string) bool { n, err := strconv.Atoi(v); return err == nil && n >= 1024 }, "rsaminsize": anyValue,
	"authenticationmethods": oneOf("any", "publickey"), "pubkeyauthoptions": oneOf("none", "touch-required", "verify-required"),
	"allowusers": anyValue, "allowgroups": anyValue, "denyusers": anyValue, "denygroups": anyValue,
	"ignorerhosts": oneOf("yes"), "ignoreuserknownhosts": anyValue, "hostbasedusesnamefrompacketonly": oneOf("no"),
	"hostbasedacceptedalgorithms": anyValue, "hostbasedacceptedkeytypes": anyValue, // without HostbasedAuthentication of no effect
	"rhostsrsaauthentication": oneOf("no"), "rsaauthentication": anyValue, "refuseconnection": oneOf("no"),
	"kerberosauthentication": oneOf("no"), "kerberosorlocalpasswd": anyValue, "kerberosticketcleanup": anyValue, "kerberosgetafstoken": anyValue,
	"kerberosuniqueccache": anyValue, "kerberosusekuserok": anyValue, "gssapiauthentication": oneOf("no"), "gssapikeyexchange": oneOf("no"),
	"gssapicleanupcredentials": anyValue, "gssapistrictacceptorcheck": anyValue, "gssapistorecredentialsonrekey": anyValue,
	"gssapikexalgorithms": anyValue, "gssapienablek5users": oneOf("no"), "gssapiindicators": anyValue, "gssapidelegatecredentials": oneOf("no"),
	"revokedkeys": anyValue, "securitykeyprovider": oneOf("internal"), "casignaturealgorithms": listOf(goodKeys),
	// What it is made of.
	"hostkey": matches(`/etc/ssh/ssh_host_(rsa|ecdsa|ed25519)_key`), "hostcertificate": oneOf("none"), "modulifile": oneOf("/etc/ssh/moduli", "/etc/moduli"),
	"subsystem": func(v string) bool {
		name, command, _ := strings.Cut(v, " ")
		program, arguments, _ := strings.Cut(command, " ")
		return name == "sftp" && (program == "internal-sftp" || path.Base(program) == "sftp-server" && strings.HasPrefix(program, "/usr/lib")) &&
			matches(`((-[flu]|[A-Z0-9]+)( |$))*`)(arguments)
	},
	"sshdsessionpath": matches(`/usr/lib(exec)?/(openssh|ssh)/sshd-session`), "sshdauthpath": matches(`/usr/lib(exec)?/(openssh|ssh)/sshd-auth`),
	"useprivilegeseparation": oneOf("yes", "sandbox"), "uselogin": oneOf("no"), "pidfile": matches(`/(var/)?run/sshd?\.pid|/run/sshd-init\.pid|none`),
	"keyregenerationinterval": anyValue, "serverkeybits": anyValue, "compression": oneOf("yes", "no", "delayed"), "rekeylimit": anyValue,
	"xauthlocation": oneOf("/usr/bin/xauth", "/usr/X11R6/bin/xauth"), "usedns": anyValue, "ipqos": anyValue, "tcpkeepalive": anyValue,
	"clientaliveinterval": anyValue, "clientalivecountmax": anyValue, "channeltimeout": anyValue, "unusedconnectiontimeout": anyValue,
	"versionaddendum": anyValue, "debianbanner": anyValue, "showpatchlevel": anyValue, "banner": matches(`none|/etc/(issue(\.net)?|ssh/[a-z_.-]+)`),
	// What a session may do.
	"acceptenv": matches(`LANG|LANGUAGE|LC_[A-Z_*]+|COLORTERM|NO_COLOR|XMODIFIERS|TERM`), "setenv": func(string) bool { return false },
	"permituserenvironment": oneOf("no"), "permituserrc": anyValue, "forcecommand": oneOf("none"), "chrootdirectory": oneOf("none"),
	"x11forwarding": oneOf("no"), "x11uselocalhost": oneOf("yes"), "x11displayoffset": anyValue, "x11maxdisplays": anyValue,
	"gatewayports": oneOf("no"), "permittunnel": oneOf("no"), "allowtcpforwarding": anyValue, "allowagentforwarding": anyValue,
	"allowstreamlocalforwarding": anyValue, "streamlocalbindmask": oneOf("0177", "0077"), "streamlocalbindunlink": anyValue,
	"disableforwarding": anyValue, "permitopen": anyValue, "permitlisten": anyValue, "permittty": oneOf("yes"), "exposeauthinfo": anyValue,
	"printmotd": anyValue, "printlastlog": anyValue, "fingerprinthash": oneOf("SHA256"),
	// What it tells.
	"loglevel": oneOf("INFO", "VERBOSE"), "syslogfacility": oneOf("AUTH", "AUTHPRIV"), "logverbose": anyValue,
}

func judgeSSHDOptions(f Facts, _ Params) Verdict {
	const expected = "defaults or safer values, of options that are known"
	var bad []string
	seen := 0
	for _, view := range f.sshdViews() {
		for _, key := range slices.Sorted(maps.Keys(view.values)) {
			if slices.Contains(sshdJudged, key) || sshdKeySources[key] != nil {
				continue
			}
			seen++
			good, known := sshdOptions[key]
			for _, v := range view.values[key] {
				switch {
				case !known:
					bad = append(bad, fmt.Sprintf("%s %s is an option that is not known", key, v))
				case !good(v):
					bad = append(bad, fmt.Sprintf("%s %s for %s", key, v, view.who))
				}
			}
		}
	}
	switch {
	case len(bad) > 0:
		return failed(expected, names(bad))
	case seen < 20:
		return unknown("sshd -T shows %d options only", seen)
	}
	return Verdict{Status: Pass, Expected: expected, Found: fmt.Sprintf("%d options", seen)}
}
