package testsuite

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The state of the art, as references: OpenSSH's own defaults of today, dev-sec
// ssh-baseline and ssh-audit agree on these; ecdh-sha2-nistp384 is what the
// image factory added in 2018-09 for clients that know nothing newer.
var (
	goodKex = []string{
		"mlkem768x25519-sha256", "sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com",
		"sntrup4591761x25519-sha512@tinyssh.org", "curve25519-sha256", "curve25519-sha256@libssh.org",
		"ecdh-sha2-nistp384", "diffie-hellman-group16-sha512", "diffie-hellman-group18-sha512",
		"diffie-hellman-group-exchange-sha256",
		// Not key exchanges, but offered among them: RFC 8308 and OpenSSH's PROTOCOL.
		"ext-info-s", "kex-strict-s-v00@openssh.com",
	}
	goodCiphers = []string{
		"chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-gcm@openssh.com",
		"aes256-ctr", "aes192-ctr", "aes128-ctr",
	}
	goodMACs = []string{
		"hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "umac-128-etm@openssh.com",
		"hmac-sha2-512", "hmac-sha2-256",
	}
	goodKeys = []string{
		"ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com",
		"sk-ssh-ed25519@openssh.com", "sk-ssh-ed25519-cert-v01@openssh.com",
		"rsa-sha2-512", "rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256", "rsa-sha2-256-cert-v01@openssh.com",
		"ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256-cert-v01@openssh.com",
		"ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384-cert-v01@openssh.com",
		"ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521-cert-v01@openssh.com",
		"sk-ecdsa-sha2-nistp256@openssh.com", "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
		"webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
	}
)

const (
	refPromise  = "OTC image factory introduction: sshd permits neither password authentication nor root login"
	refCrypto   = "OTC image factory introduction: the ssh config only allows state-of-the-art cryptography"
	refDevSec   = "dev-sec ssh-baseline"
	refSSHAudit = "ssh-audit policy: hardened OpenSSH server"
)

// sshdViews are sshd's effective configuration: what holds for a stranger, and
// what else holds for whom a Match block names.
var sshdViews = []string{"sshd-config", "sshd-views"}

// A sshdView is what sshd -T says for some connections.
type sshdView struct {
	who    string // "a stranger", or the connection as sshd -C takes it
	values map[string][]string
}

func (f Facts) sshdViews() []sshdView {
	views := []sshdView{{"a stranger", f.values("sshd-config")}}
	for _, file := range f.files("sshd-views") {
		views = append(views, sshdView{file.name, keyValues(file.lines)})
	}
	return views
}

// sshdOption demands one value of an option in every view.
func sshdOption(id, title, why string, severity Severity, expected string, keys ...string) Check {
	return Check{
		ID: id, Title: title, Why: why, Severity: severity, Needs: sshdViews,
		References: []string{refPromise, refDevSec, "sshd_config(5): " + keys[0]},
		Judge: func(f Facts, _ Params) Verdict {
			seen := false
			var bad []string
			for _, view := range f.sshdViews() {
				for _, key := range keys {
					for _, v := range view.values[strings.ToLower(key)] {
						seen = true
						if v != expected {
							bad = append(bad, fmt.Sprintf("%s for %s", v, view.who))
						}
					}
				}
			}
			switch {
			case !seen:
				return unknown("sshd -T does not show %s", keys[0])
			case len(bad) > 0:
				return failed(expected, names(bad))
			}
			return want(expected, expected)
		},
	}
}

// sshdAlgorithms demands that a list of sshd -T has only good algorithms.
func sshdAlgorithms(id, title, key string, good []string) Check {
	return Check{
		ID: id, Title: title, Severity: High, Needs: sshdViews,
		Why:        "A weak algorithm that is offered can be negotiated, by an old client or by an attacker in between.",
		References: []string{refCrypto, refDevSec, refSSHAudit},
		Judge: func(f Facts, _ Params) Verdict {
			var list []string
			for i, view := range f.sshdViews() {
				if v := view.values[key]; len(v) > 0 {
					list = append(list, strings.Split(strings.Join(v, ","), ",")...)
				} else if i == 0 {
					return unknown("sshd -T does not show %s", key)
				}
			}
			return onlyGood(list, good)
		},
	}
}

// wireAlgorithms demands the same of what sshd offers on the wire.
func wireAlgorithms(id, title string, good []string, lists ...string) Check {
	return Check{
		ID: id, Title: title, Severity: High, Needs: []string{"wire-algorithms"},
		Why:        "What counts is what the running server offers, whatever its configuration file says.",
		References: []string{refCrypto, refSSHAudit, "RFC 4253, section 7.1"},
		Judge: func(f Facts, _ Params) Verdict {
			var offered []string
			for _, list := range lists {
				names := f.value("wire-algorithms", list)
				if names == "" {
					return unknown("the server offers no %s", list)
				}
				offered = append(offered, strings.Split(names, ",")...)
			}
			return onlyGood(offered, good)
		},
	}
}

func onlyGood(list, good []string) Verdict {
	if bad := without(list, good); len(bad) > 0 {
		return failed("none but "+names(good), names(bad))
	}
	return passed(names(list))
}

func sshdChecks() []Check {
	return []Check{
		sshdOption("sshd.password-authentication", "sshd accepts no passwords",
			"Machines on the internet see several guesses a minute.", Critical, "no", "PasswordAuthentication"),
		sshdOption("sshd.keyboard-interactive", "sshd asks no questions that a password answers",
			"Keyboard-interactive authentication is password authentication by another name.", Critical, "no",
			"KbdInteractiveAuthentication", "ChallengeResponseAuthentication"),
		sshdOption("sshd.permit-empty-passwords", "sshd accepts no empty passwords",
			"A user without a password would be open to everybody.", Critical, "no", "PermitEmptyPasswords"),
		sshdOption("sshd.permit-root-login", "sshd lets root in by no method",
			"Root's name is known to every attacker, and what root does is nobody's.", Critical, "no", "PermitRootLogin"),
		sshdOption("sshd.pubkey-authentication", "sshd accepts public keys",
			"It is the one way into the machine.", High, "yes", "PubkeyAuthentication"),
		sshdOption("sshd.hostbased-authentication", "sshd trusts no other hosts",
			"A host that is broken into would open this one.", High, "no", "HostbasedAuthentication"),
		sshdAlgorithms("sshd.kex", "sshd is configured for state-of-the-art key exchange only", "kexalgorithms", goodKex),
		sshdAlgorithms("sshd.ciphers", "sshd is configured for state-of-the-art ciphers only", "ciphers", goodCiphers),
		sshdAlgorithms("sshd.macs", "sshd is configured for state-of-the-art MACs only", "macs", goodMACs),
		sshdAlgorithms("sshd.host-key-algorithms", "sshd proves itself by state-of-the-art signatures only", "hostkeyalgorithms", goodKeys),
		sshdAlgorithms("sshd.user-key-algorithms", "sshd accepts users by state-of-the-art signatures only", "pubkeyacceptedalgorithms", goodKeys),
		{
			ID: "sshd.running", Severity: Critical, Needs: []string{"sshd-processes"},
			Title: "what runs as sshd is /usr/sbin/sshd, started with no other arguments than -D",
			Why:   "Arguments override the configuration file, and another program obeys another one.", References: []string{refPromise, "sshd(8)"},
			Judge: judgeSSHDRunning,
		},
		{
			ID: "sshd.match", Severity: High, Needs: []string{"sshd-match"},
			Title: "no Match block makes an exception",
			Why:   "What holds for one address, user or port only is what an inspection from elsewhere does not see.", References: []string{refPromise, "sshd_config(5): Match"},
			Judge: func(f Facts, _ Params) Verdict {
				blocks := slices.Collect(strings.Lines(f.text("sshd-match")))
				return want("none", cmpOr(oneLine(strings.Join(blocks, "; ")), "none"))
			},
		},
		{
			ID: "sshd.key-sources", Severity: Critical, Needs: sshdViews,
			Title: "sshd looks for keys in the users' own files only, and trusts no authority",
			Why:   "Every other source lets in whom it likes.", References: []string{refPromise, "sshd_config(5): AuthorizedKeysFile, AuthorizedKeysCommand, TrustedUserCAKeys"},
			Judge: judgeSSHDKeySources,
		},
		{
			ID: "sshd.options", Severity: Medium, Needs: sshdViews,
			Title:      "every other option of sshd has its default or a safer value",
			Why:        "Options that nobody looks at weaken sshd too: environments, forced commands, foreign subsystems, files of weak primes.",
			References: []string{refDevSec, "sshd_config(5)"},
			Judge:      judgeSSHDOptions,
		},
		{
			ID: "sshd.host-key-sizes", Severity: High, Needs: []string{"identity"},
			Title: "each host key is Ed25519, ECDSA, or RSA of 2048 bits or more",
			Why:   "Whoever computes a short key poses as the machine.", References: []string{refCrypto, refSSHAudit},
			Judge: judgeHostKeySizes,
		},
		{
			ID: "sshd.password-login", Severity: Critical, Needs: []string{"wire-password"},
			Title: "the running sshd offers no password login and refuses the login user's real password",
			Why:   "The password that the console shows must not open the network.", References: []string{refPromise, "RFC 4252, section 5"},
			Judge: judgePasswordLogin,
		},
		{
			ID: "sshd.root-login", Severity: Critical, Needs: []string{"wire-root", "root-key"},
			Title: "the running sshd refuses root although root's authorized_keys has the key",
			Why:   "A key that finds its way into root's file must not open the machine.", References: []string{refPromise, "RFC 4252, section 7"},
			Judge: judgeRootLogin,
		},
		wireAlgorithms("sshd.offered-kex", "the running sshd offers state-of-the-art key exchange only", goodKex, "kex"),
		wireAlgorithms("sshd.offered-ciphers", "the running sshd offers state-of-the-art ciphers only", goodCiphers,
			"cipher-to-server", "cipher-to-client"),
		wireAlgorithms("sshd.offered-macs", "the running sshd offers state-of-the-art MACs only", goodMACs,
			"mac-to-server", "mac-to-client"),
		wireAlgorithms("sshd.offered-host-keys", "the running sshd proves itself by state-of-the-art signatures only", goodKeys, "hostkey"),
		{
			ID: "sshd.offered-methods", Severity: High, Needs: []string{"wire-password"},
			Title: "the running sshd offers no way in by other hosts, realms or whatever else",
			Why:   "Other hosts and realms are broken into, and nobody looks at them.", References: []string{refPromise, "RFC 4252, section 5"},
			Judge: func(f Facts, _ Params) Verdict {
				offered := strings.Split(f.value("wire-password", "offered"), ",")
				// Of passwords sshd.password-login judges.
				return judgeNone(without(offered, []string{"publickey", "password", "keyboard-interactive"}), "publickey", names(offered))
			},
		},
		{
			ID: "sshd.weak-refused", Severity: High, Needs: []string{"wire-weak", "wire-algorithms"},
			Title: "the running sshd agrees to no weak algorithm that it does not offer",
			Why:   "What is negotiated counts, whatever the server says that it offers.", References: []string{refCrypto, refSSHAudit, "RFC 4253, section 7.1"},
			Judge: judgeWeakRefused,
		},
		{
			ID: "sshd.terrapin", Severity: Medium, Needs: []string{"wire-algorithms"},
			Title: "the running sshd keeps the count of messages from being tampered with",
			Why:   "Without strict key exchange an attacker in between removes messages from the beginning (CVE-2023-48795).", References: []string{refSSHAudit, "CVE-2023-48795"},
			Judge: judgeTerrapin,
		},
		{
			ID: "sshd.everywhere", Severity: Critical, Needs: []string{"wire-ssh", "wire-algorithms", "wire-password"},
			Title: "whatever speaks SSH, on each address and port, is this sshd and as strict",
			Why:   "A second sshd, or one that is strict on port 22 of IPv4 only, is a second door.", References: []string{refPromise, refCrypto},
			Judge: judgeSSHEverywhere,
		},
	}
}

// judgeWeakRefused leaves to others what the server offers.
func judgeWeakRefused(f Facts, _ Params) Verdict {
	lines := f.lines("wire-weak")
	if len(lines) != len(weakAlgorithms) {
		return unknown("%d of %d attempts were made", len(lines), len(weakAlgorithms))
	}
	var bad []string
	for _, l := range lines {
		if len(l) != 3 || l[1] != "refused" && l[1] != "accepted" {
			return unknown("the attempt is not decided: %s", strings.Join(l, " "))
		}
		if l[1] == "refused" {
			continue
		}
		var offered []string
		for _, suffix := range []string{"", "-to-server", "-to-client"} {
			offered = append(offered, strings.Split(f.value("wire-algorithms", l[0]+suffix), ",")...)
		}
		bad = append(bad, without(strings.Split(l[2], ","), offered)...)
	}
	return judgeNone(bad, "none", "")
}

// strictKex is what a server says among its key exchanges that keeps to strict ones.
const strictKex = "kex-strict-s-v00@openssh.com"

// judgeTerrapin passes what has no cipher that the attack is for.
func judgeTerrapin(f Facts, _ Params) Verdict {
	list := func(name string) []string { return strings.Split(f.value("wire-algorithms", name), ",") }
	const expected = "strict key exchange, or no cipher that needs it"
	if slices.Contains(list("kex"), strictKex) {
		return Verdict{Status: Pass, Expected: expected, Found: "strict key exchange"}
	}
	etm := slices.ContainsFunc(list("mac-to-client"), func(m string) bool { return strings.Contains(m, "-etm@") })
	for _, c := range list("cipher-to-client") {
		if strings.HasPrefix(c, "chacha20-poly1305") || strings.HasSuffix(c, "-cbc") && etm {
			return failed(expected, c+" without it")
		}
	}
	return Verdict{Status: Pass, Expected: expected, Found: "no such cipher"}
}

// judgeSSHEverywhere compares each listener with the one that the other checks judge.
func judgeSSHEverywhere(f Facts, _ Params) Verdict {
	main := f.values("wire-algorithms")
	main["offered"] = f.values("wire-password")["offered"]
	var bad, good []string
	for _, listener := range f.files("wire-ssh") {
		if slices.Contains(listener.lines, "not SSH") {
			continue // net.ports-outside has it
		}
		values := keyValues(listener.lines)
		before := len(bad)
		find := func(format string, args ...any) { bad = append(bad, listener.name+" "+fmt.Sprintf(format, args...)) }
		if !strings.HasSuffix(listener.name, ":22") {
			find("speaks SSH")
		}
		if slices.Contains(listener.lines, "another host key") {
			find("shows another host key")
		} else if login := strings.Join(values["login"], ","); login != "refused" && login != "undecided" {
			find("login with a made up password: %s", cmpOr(login, "nothing"))
		}
		for _, key := range slices.Concat(kexNames[:6], []string{"version", "offered"}) {
			list := func(of map[string][]string) []string { return strings.Split(strings.Join(of[key], ","), ",") }
			if more := without(list(values), append(list(main), strictKex)); strings.Join(main[key], "") != "" && len(more) > 0 {
				find("has for %s also %s", key, names(more))
			}
		}
		if len(bad) == before {
			good = append(good, listener.name)
		}
	}
	if len(bad) == 0 && len(good) == 0 {
		return unknown("no sshd was seen from outside, although it was reached")
	}
	return judgeNone(bad, "the same sshd on port 22 of each address", names(good))
}

// minRSABits is the least that NIST SP 800-57 and ssh-audit's policies take.
const minRSABits = 2048

// judgeHostKeySizes reads "SECONDS BITS FINGERPRINT COMMENT (TYPE)" of each key.
func judgeHostKeySizes(f Facts, _ Params) Verdict {
	var good, bad []string
	for _, key := range f.values("identity")["hostkey"] {
		w := strings.Fields(key)
		if len(w) < 4 {
			return unknown("cannot understand the host key %q", key)
		}
		kind := strings.Trim(w[len(w)-1], "()")
		bits, err := strconv.Atoi(w[1])
		found := fmt.Sprintf("%s of %s bits", kind, w[1])
		if err == nil && (kind == "ED25519" || kind == "ECDSA" || kind == "RSA" && bits >= minRSABits) {
			good = append(good, found)
		} else {
			bad = append(bad, found)
		}
	}
	const expected = "Ed25519, ECDSA, or RSA of 2048 bits or more"
	switch {
	case len(bad) > 0:
		return failed(expected, names(bad))
	case len(good) == 0:
		return unknown("no host key is shown")
	}
	return Verdict{Status: Pass, Expected: expected, Found: names(good)}
}

func judgePasswordLogin(f Facts, _ Params) Verdict {
	const expected = "refused, neither password nor keyboard-interactive offered"
	login := f.value("wire-password", "login")
	offered := f.value("wire-password", "offered")
	partial := f.value("wire-password", "partial")
	found := fmt.Sprintf("%s, %s offered", cmpOr(login, "nothing"), cmpOr(offered, "nothing"))
	methods := strings.Split(offered, ",")
	switch {
	case login == "accepted" || partial != "" || slices.Contains(methods, "password") || slices.Contains(methods, "keyboard-interactive"):
		return failed(expected, found)
	case login != "refused" || offered == "":
		return unknown("the attempt is not decided: %s", found)
	}
	return Verdict{Status: Pass, Expected: expected, Found: found}
}

func judgeRootLogin(f Facts, _ Params) Verdict {
	files := f.value("root-key", "authorizedkeysfile")
	if !slices.Contains(strings.Fields(files), ".ssh/authorized_keys") {
		return unknown("sshd does not look for root's keys in .ssh/authorized_keys but in %q, so the attempt proves nothing", files)
	}
	login := f.value("wire-root", "login")
	tried := strings.Split(f.value("wire-root", "tried"), ",")
	switch {
	case login == "accepted" || f.value("wire-root", "partial") != "":
		return failed("refused", "root was let in by its key")
	case login != "refused" || !slices.Contains(tried, "publickey"):
		return unknown("the attempt is not decided: %s, tried %s", login, names(tried))
	}
	return want("refused", "refused")
}
