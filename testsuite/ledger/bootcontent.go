package ledger

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

var digest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// content returns what is wrong with what stands in a file, or "".
func (a *bootAccount) content(f *File, r *Rule, value string) string {
	switch value {
	case "empty":
		if f.Size != 0 {
			return "it is not empty"
		}
		return ""
	case "skel":
		if skel := a.before["/etc/skel/"+path.Base(f.Path)]; skel == nil || skel.SHA256 != f.SHA256 {
			return "not what /etc/skel has"
		}
		return ""
	case "apparmor":
		if a.before["/etc/apparmor.d/"+path.Base(f.Path)] == nil {
			return "of no profile of the image"
		}
		return ""
	case "timer":
		name := strings.TrimPrefix(path.Base(f.Path), "stamp-")
		if a.before["/usr/lib/systemd/system/"+name] == nil || f.Size != 0 {
			return "of no timer of the image, or not empty"
		}
		return ""
	}
	if digest.MatchString(value) {
		if f.SHA256 != value {
			return "another content than the rule says"
		}
		return ""
	}
	text, kept := a.is[f.Path]
	if !kept {
		return "its content is not looked at"
	}
	// A backup's file ("passwd-") is as the file was before the boot, or later.
	was, user := a.was[strings.TrimSuffix(f.Path, "-")], regexp.QuoteMeta(a.User)
	switch value {
	case "passwd":
		return oneMore(text, was, `^`+user+`:x:[1-9][0-9]{3,4}:[1-9][0-9]{3,4}:[^:]*:/home/`+user+`:/bin/(ba)?sh$`)
	case "shadow":
		return oneMore(text, was, `^`+user+`:([!*]+|\$[a-z0-9]+\$[^:]+):[0-9]+:0:99999:7:::$`)
	case "subids":
		return oneMore(text, was, `^`+user+`:[0-9]+:65536$`)
	case "groups":
		return oneMore(a.withoutUser(text, r), was, `^`+user+`:[x!*]+:[0-9]*:$`)
	case "machine-id":
		return matches(text, `^[0-9a-f]{32}\n$`)
	case "hostname":
		if a.Hostname == "" || string(text) != a.Hostname+"\n" {
			return "not the name that the machine was given"
		}
		return ""
	case "hosts":
		name := regexp.QuoteMeta(a.Hostname)
		return eachLine(text, `^(#.*|127\.0\.1\.1 `+name+`( `+name+`)?|127\.0\.0\.1 localhost|::1 localhost ip6-localhost ip6-loopback|ff02::1 ip6-allnodes|ff02::2 ip6-allrouters)?$`)
	case "network":
		return eachLine(text, `^(\[Match\]|\[Network\]|MACAddress=[0-9a-f:]{17}|Name=[a-z0-9]+|DHCP=(ipv4|yes))?$`)
	case "sudoers":
		return matches(text, `^# Created by cloud-init v\. [^\n]*\n\n# User rules for `+user+`\n`+user+` ALL=\(ALL\) NOPASSWD:ALL\n$`)
	case "multipart":
		return eachLine(text, `^(Content-Type: multipart/mixed; boundary="[=0-9]+"|MIME-Version: 1\.0|Number-Attachments: 1|--[=0-9]+(--)?|`+
			`Content-Type: text/x-not-multipart|Content-Disposition: attachment; filename="part-001")?$`)
	case "host-key", "host-key-public":
		return a.hostKey(f.Path)
	case "user-keys", "root-keys":
		return a.authorized(text, value == "root-keys")
	case "debconf":
		return debconf(text, a.was[strings.TrimSuffix(f.Path, "-old")])
	}
	return "the rule says content=" + value + ", which a boot's cannot"
}

func matches(text []byte, pattern string) string {
	if ok, err := regexp.Match(pattern, text); err != nil || !ok {
		return "not what the first boot writes there"
	}
	return ""
}

func eachLine(text []byte, pattern string) string {
	for i, line := range strings.Split(string(text), "\n") {
		if ok, err := regexp.MatchString(pattern, line); err != nil || !ok {
			return fmt.Sprintf("line %d is not one that the first boot writes there", i+1)
		}
	}
	return ""
}

// oneMore allows a text the lines that it had, in their order, and at most one more.
func oneMore(text, was []byte, pattern string) string {
	old := strings.Split(strings.TrimSuffix(string(was), "\n"), "\n")
	if len(was) == 0 {
		old = nil
	}
	more := 0
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		if len(old) > 0 && line == old[0] {
			old = old[1:]
			continue
		}
		if ok, err := regexp.MatchString(pattern, line); err != nil || !ok {
			return fmt.Sprintf("line %d is neither the image's nor the login user's: %s", i+1, quote(before(line, ":")))
		}
		more++
	}
	switch {
	case len(old) > 0:
		return "a line of the image's is missing: " + quote(before(old[0], ":"))
	case more > 1:
		return "the login user is there twice"
	}
	return ""
}

func before(s, sep string) string {
	s, _, _ = strings.Cut(s, sep)
	return s
}

// withoutUser takes the login user out of the groups that the rule names.
func (a *bootAccount) withoutUser(text []byte, r *Rule) []byte {
	groups := strings.Split(r.Demands["members"], ",")
	var out bytes.Buffer
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if last := len(fields) - 1; last == 3 && slices.Contains(groups, fields[0]) {
			members := strings.Split(fields[last], ",")
			fields[last] = strings.Join(slices.DeleteFunc(members, func(m string) bool { return m == a.User }), ",")
		}
		out.WriteString(strings.Join(fields, ":") + "\n")
	}
	return out.Bytes()
}

// hostKey holds a host key to its other half, and to the key that the machine
// showed.
func (a *bootAccount) hostKey(name string) string {
	private := strings.TrimSuffix(name, ".pub")
	signer, err := ssh.ParsePrivateKey(a.is[private])
	if err != nil {
		return "no private key without a passphrase"
	}
	public, comment, options, rest, err := ssh.ParseAuthorizedKey(a.is[private+".pub"])
	if err != nil || len(options)+len(bytes.TrimSpace(rest)) > 0 || strings.Contains(strings.TrimPrefix(comment, "root@"), " ") {
		return "no single public key"
	}
	key := signer.PublicKey()
	switch {
	case !bytes.Equal(key.Marshal(), public.Marshal()):
		return "public and private key are of two pairs"
	case a.HostKey != nil && key.Type() == a.HostKey.Type() && !bytes.Equal(key.Marshal(), a.HostKey.Marshal()):
		return "another key than the machine showed"
	case path.Base(private) != "ssh_host_"+keyName(key.Type())+"_key":
		return "a key of type " + key.Type()
	}
	return ""
}

func keyName(algorithm string) string {
	switch algorithm {
	case ssh.KeyAlgoED25519:
		return "ed25519"
	case ssh.KeyAlgoRSA:
		return "rsa"
	}
	return "ecdsa"
}

// authorized allows the injected key and nothing else; root's has what cloud-init
// puts before it, which lets nobody in.
func (a *bootAccount) authorized(text []byte, root bool) string {
	if a.Key == nil {
		return "no key was injected"
	}
	want := string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(a.Key)))
	if root {
		want = `no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="echo 'Please login as the user \"` + a.User +
			`\" rather than the user \"root\".';echo;sleep 10;exit 142" ` + want
	}
	if string(bytes.TrimSpace(text)) != want {
		return "not exactly the key that was injected"
	}
	return ""
}

// debconf allows the package manager's questions and answers to be other than the
// image's only in where the boot loader is.
func debconf(text, was []byte) string {
	old, now := stanzas(was), stanzas(text)
	for name, stanza := range now {
		if old[name] != stanza && !strings.HasPrefix(name, "grub-pc/") && !strings.HasPrefix(name, "grub-efi/") {
			return "another question or answer of " + quote(name)
		}
	}
	for name := range old {
		if _, ok := now[name]; !ok {
			return "without " + quote(name)
		}
	}
	return ""
}

// stanzas reads debconf's database, by the names that its paragraphs begin with.
func stanzas(text []byte) map[string]string {
	m := map[string]string{}
	for stanza := range strings.SplitSeq(string(text), "\n\n") {
		name, rest, _ := strings.Cut(strings.TrimSpace(stanza), "\n")
		if name != "" {
			m[strings.TrimPrefix(name, "Name: ")] += rest
		}
	}
	return m
}
