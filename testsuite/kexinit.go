package testsuite

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A kexOffer is what an SSH server offers before any key exchange: its
// version line and the name lists of SSH_MSG_KEXINIT, RFC 4253, section 7.1.
type kexOffer struct {
	version string
	lists   [len(kexNames)]string
}

// kexNames are the name lists of SSH_MSG_KEXINIT in their order on the wire.
var kexNames = [...]string{
	"kex", "hostkey", "cipher-to-server", "cipher-to-client", "mac-to-server", "mac-to-client",
	"compression-to-server", "compression-to-client", "language-to-server", "language-to-client",
}

// String has one line per list: its name and its algorithms as on the wire.
func (o kexOffer) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version %s\n", o.version)
	for i, name := range kexNames {
		fmt.Fprintf(&b, "%s %s\n", name, o.lists[i])
	}
	return b.String()
}

const (
	maxVersionLine = 255     // RFC 4253, section 4.2, without CR LF: 253
	maxBannerLines = 32      // lines that a server may send before its version
	maxPacket      = 35000   // RFC 4253, section 6.1
	msgKexInit     = 20      // RFC 4250, section 4.1.2
	kexCookie      = 16      // random bytes before the lists
	minPadding     = 4       // RFC 4253, section 6
	sshVersion     = "SSH-2" // SSH-2.0, and SSH-1.99 is not wanted
)

var errNotSSH = errors.New("this is no SSH 2 server")

// readOffer reads a server's version and its first packet, and returns the reader of
// what follows.
func readOffer(r io.Reader) (kexOffer, io.Reader, error) {
	br := bufio.NewReaderSize(r, maxVersionLine+1)
	o, err := readKexInit(br)
	return o, br, err
}

// readKexInit reads a server's version and its first packet. It reads at most
// about 43 KiB.
func readKexInit(r io.Reader) (kexOffer, error) {
	var o kexOffer
	br, ok := r.(*bufio.Reader)
	if !ok {
		br = bufio.NewReaderSize(r, maxVersionLine+1)
	}
	for n := 0; ; n++ {
		if n == maxBannerLines {
			return o, fmt.Errorf("%w: no version in its first %d lines", errNotSSH, n)
		}
		line, err := br.ReadSlice('\n')
		if err != nil {
			return o, fmt.Errorf("%w: cannot read its version line: %w", errNotSSH, err)
		}
		text := strings.TrimRight(string(line), "\r\n")
		if !strings.HasPrefix(text, "SSH-") {
			continue
		}
		if !strings.HasPrefix(text, sshVersion) {
			return o, fmt.Errorf("%w: its version is %q", errNotSSH, text)
		}
		if o.version, err = printable(text); err != nil {
			return o, err
		}
		break
	}
	var header [5]byte
	if _, err := io.ReadFull(br, header[:]); err != nil {
		return o, fmt.Errorf("cannot read packet header: %w", err)
	}
	length, padding := binary.BigEndian.Uint32(header[:4]), uint32(header[4])
	if length > maxPacket || padding < minPadding || length < padding+2+kexCookie {
		return o, fmt.Errorf("cannot read packet of %d bytes with %d bytes of padding", length, padding)
	}
	packet := make([]byte, length-1)
	if _, err := io.ReadFull(br, packet); err != nil {
		return o, fmt.Errorf("cannot read packet of %d bytes: %w", length, err)
	}
	payload := packet[:length-1-padding]
	if payload[0] != msgKexInit {
		return o, fmt.Errorf("cannot read first packet: message %d is not SSH_MSG_KEXINIT", payload[0])
	}
	rest := payload[1:]
	if len(rest) < kexCookie {
		return o, errors.New("cannot read SSH_MSG_KEXINIT: it ends within its cookie")
	}
	rest = rest[kexCookie:]
	for i, name := range kexNames {
		if len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return o, fmt.Errorf("cannot read SSH_MSG_KEXINIT: it ends within %s", name)
		}
		n := 4 + binary.BigEndian.Uint32(rest)
		list, err := printable(string(rest[4:n]))
		if err != nil {
			return o, fmt.Errorf("cannot read SSH_MSG_KEXINIT: %s: %w", name, err)
		}
		o.lists[i], rest = list, rest[n:]
	}
	return o, nil
}

// printable refuses what RFC 4251, section 6 keeps out of names: anything but
// printable US-ASCII. A version may hold spaces.
func printable(s string) (string, error) {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return "", fmt.Errorf("byte %#02x at %d is not printable ASCII", s[i], i)
		}
	}
	return s, nil
}
