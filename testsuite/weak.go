package testsuite

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// weakAlgorithms are what an SSH server must not agree to, of each kind: what
// OpenSSH and Dropbear have had, less what the profile calls good.
var weakAlgorithms = []struct {
	kind  string // as in kexNames
	names []string
}{
	{"kex", []string{"diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1", "diffie-hellman-group-exchange-sha1",
		"diffie-hellman-group15-sha1", "rsa1024-sha1", "gss-group1-sha1-toWM5Slw5Ew8Mqkay+al2g==", "gss-gex-sha1-toWM5Slw5Ew8Mqkay+al2g==",
		"gss-group14-sha1-toWM5Slw5Ew8Mqkay+al2g==", "ecdh-sha2-nistp256", "ecdh-sha2-nistb233", "ecdh-sha2-nistk163", "ecdh-sha2-1.3.132.0.10"}},
	{"hostkey", []string{"ssh-dss", "ssh-rsa", "ssh-rsa-cert-v01@openssh.com", "ssh-dss-cert-v01@openssh.com", "ssh-rsa-cert-v00@openssh.com"}},
	{"cipher", []string{"3des-cbc", "aes128-cbc", "aes192-cbc", "aes256-cbc", "rijndael-cbc@lysator.liu.se", "blowfish-cbc", "cast128-cbc",
		"arcfour", "arcfour128", "arcfour256", "des-cbc", "idea-cbc", "twofish-cbc", "twofish128-cbc", "twofish256-cbc", "3des-ctr", "none"}},
	{"mac", []string{"hmac-md5", "hmac-md5-96", "hmac-md5-etm@openssh.com", "hmac-md5-96-etm@openssh.com", "hmac-sha1", "hmac-sha1-96",
		"hmac-sha1-etm@openssh.com", "hmac-sha1-96-etm@openssh.com", "hmac-ripemd160", "hmac-ripemd160@openssh.com", "hmac-ripemd160-etm@openssh.com",
		"umac-64@openssh.com", "umac-64-etm@openssh.com", "none"}},
}

const weakTimeout = 30 * time.Second // of one attempt: an emulated machine forks slowly

// probeWeak offers the sshd that ports, as a witness says them, has first nothing but weak algorithms of one kind after the other, with
// all that it offers itself of the other kinds, and says of each kind whether it agrees:
//
//	KIND refused|accepted NAME,NAME…
//
// A server that agrees takes one of the list, so a list that is refused is one whose
// every name is; one that is accepted is tried again name by name.
func probeWeak(ctx context.Context, dial dialer, ports string) (string, error) {
	address := ""
	for line := range strings.Lines(ports) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "tcp" && f[2] == "22" && address == "" {
			address = net.JoinHostPort(f[1], f[2])
		}
	}
	if address == "" {
		return "", errors.New("no sshd was seen from outside")
	}
	return weakAgreed(ctx, dial, address)
}

func weakAgreed(ctx context.Context, dial dialer, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var b strings.Builder
	for _, weak := range weakAlgorithms {
		agreed, err := agrees(ctx, dial, address, weak.kind, weak.names)
		if err != nil {
			return "", err
		}
		if !agreed {
			fmt.Fprintf(&b, "%s refused %s\n", weak.kind, strings.Join(weak.names, ","))
			continue
		}
		var taken []string
		for _, name := range weak.names {
			one, err := agrees(ctx, dial, address, weak.kind, []string{name})
			if err != nil {
				return "", err
			}
			if one {
				taken = append(taken, name)
			}
		}
		fmt.Fprintf(&b, "%s accepted %s\n", weak.kind, strings.Join(taken, ","))
	}
	return b.String(), nil
}

// msgNobodyKnows is a message of those kept for methods of key exchange, RFC 4250,
// section 4.1, which none uses. A server that goes on answers it with
// msgUnimplemented, RFC 4253, section 11.4.
const (
	msgNobodyKnows   = 49
	msgUnimplemented = 3
	msgDisconnect    = 1
)

// agrees reports whether a server goes on with a key exchange for which it is offered
// only names of one kind.
func agrees(ctx context.Context, dial dialer, address, kind string, names []string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, weakTimeout)
	defer cancel()
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return false, fmt.Errorf("cannot connect to %s: %w", address, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	agreed, err := negotiate(conn, kind, names)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return false, fmt.Errorf("cannot offer %s weak algorithms of kind %s: %w", address, kind, err)
	}
	return agreed, nil
}

func negotiate(conn io.ReadWriter, kind string, names []string) (bool, error) {
	if _, err := conn.Write([]byte("SSH-2.0-otc_testsuite\r\n")); err != nil {
		return false, err
	}
	offer, rest, err := readOffer(conn)
	if err != nil {
		return false, err
	}
	payload := []byte{msgKexInit}
	payload = append(payload, make([]byte, kexCookie)...)
	_, _ = rand.Read(payload[1:]) // never fails
	for i, list := range offer.lists {
		name := kexNames[i]
		switch {
		case strings.HasPrefix(name, "compression"):
			list = "none"
		case name == kind || strings.HasPrefix(name, kind+"-to-"):
			list = strings.Join(names, ",")
		case kind == "mac" && strings.HasPrefix(name, "cipher"):
			list = "aes256-ctr,aes192-ctr,aes128-ctr," + withoutAEAD(list) // one that has a MAC of its own needs none
		}
		payload = binary.BigEndian.AppendUint32(payload, uint32(len(list)))
		payload = append(payload, list...)
	}
	payload = append(payload, 0, 0, 0, 0, 0)
	_, err = conn.Write(append(sshPacket(payload), sshPacket([]byte{msgNobodyKnows})...))
	if err != nil {
		return false, nil //nolint:nilerr // it has hung up: refused
	}
	for range 8 {
		message, err := readMessage(rest)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), err != nil && strings.Contains(err.Error(), "reset by peer"):
			return false, nil
		case err != nil:
			return false, err
		case message == msgUnimplemented:
			return true, nil
		case message == msgDisconnect:
			return false, nil
		}
	}
	return false, errors.New("it answers something else")
}

// withoutAEAD leaves out the ciphers that have a MAC of their own.
func withoutAEAD(list string) string {
	var out []string
	for _, c := range strings.Split(list, ",") {
		if !strings.Contains(c, "gcm") && !strings.Contains(c, "poly1305") {
			out = append(out, c)
		}
	}
	return strings.Join(out, ",")
}

// sshPacket is a packet before any cipher, RFC 4253, section 6.
func sshPacket(payload []byte) []byte {
	padding := 8 - (5+len(payload))%8
	if padding < minPadding {
		padding += 8
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	b = append(append(b, byte(padding)), payload...)
	return append(b, make([]byte, padding)...)
}

// readMessage reads a packet and returns which message it is.
func readMessage(r io.Reader) (byte, error) {
	var header [6]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, err
	}
	length := binary.BigEndian.Uint32(header[:4])
	if length < 2 || length > maxPacket {
		return 0, fmt.Errorf("cannot read packet of %d bytes", length)
	}
	if _, err := io.CopyN(io.Discard, r, int64(length)-2); err != nil {
		return 0, err
	}
	return header[5], nil
}
