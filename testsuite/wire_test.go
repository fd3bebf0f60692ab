package testsuite

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/sshtest"
)

// kexInit is a server's first words, with a payload that change may spoil.
func kexInit(version string, message byte, lists []string, change func(packet []byte)) []byte {
	payload := append([]byte{message}, make([]byte, kexCookie)...)
	for _, l := range lists {
		payload = binary.BigEndian.AppendUint32(payload, uint32(len(l)))
		payload = append(payload, l...)
	}
	payload = append(payload, 0, 0, 0, 0, 0) // first_kex_packet_follows, reserved
	packet := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+minPadding))
	packet = append(append(append(packet, minPadding), payload...), 0, 0, 0, 0)
	if change != nil {
		change(packet)
	}
	return append([]byte(version), packet...)
}

var tenLists = []string{"k1,k2", "h1", "c1", "c2", "m1", "m2", "none", "none", "", ""}

func TestReadKexInit(t *testing.T) {
	for _, tc := range []struct {
		name, fault string // fault "": good
		in          []byte
	}{
		{"good", "", kexInit("SSH-2.0-X\r\n", 20, tenLists, nil)},
		{"banner before", "", kexInit("hello\r\nworld\r\nSSH-2.0-X\r\n", 20, tenLists, nil)},
		{"empty", "cannot read its version line", nil},
		{"another protocol", "no version in its first 32 lines", bytes.Repeat([]byte("HTTP/1.1 400\n"), 40)},
		{"endless line", "cannot read its version line", bytes.Repeat([]byte("x"), 1<<20)},
		{"SSH 1", "its version is", []byte("SSH-1.5-X\r\n")},
		{"control characters", "not printable", kexInit("SSH-2.0-\x1b[2J\r\n", 20, tenLists, nil)},
		{"cut", "cannot read packet", kexInit("SSH-2.0-X\r\n", 20, tenLists, nil)[:40]},
		{"huge packet", "cannot read packet of", kexInit("SSH-2.0-X\r\n", 20, tenLists, func(p []byte) { p[0] = 0xff })},
		{"more padding than packet", "of padding", kexInit("SSH-2.0-X\r\n", 20, tenLists, func(p []byte) { p[4] = 255 })},
		{"another message", "is not SSH_MSG_KEXINIT", kexInit("SSH-2.0-X\r\n", 1, tenLists, nil)},
		{"list beyond packet", "ends within kex", kexInit("SSH-2.0-X\r\n", 20, tenLists, func(p []byte) { p[22] = 1 })},
		{"too few lists", "ends within", kexInit("SSH-2.0-X\r\n", 20, tenLists[:4], nil)},
		{"control characters in a list", "not printable", kexInit("SSH-2.0-X\r\n", 20, append([]string{"k\n"}, tenLists[1:]...), nil)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			offer, err := readKexInit(bytes.NewReader(tc.in))
			if tc.fault != "" {
				require.ErrorContains(t, err, tc.fault)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "version SSH-2.0-X\nkex k1,k2\nhostkey h1\ncipher-to-server c1\ncipher-to-client c2\n"+
				"mac-to-server m1\nmac-to-client m2\ncompression-to-server none\ncompression-to-client none\n"+
				"language-to-server \nlanguage-to-client \n", offer.String())
		})
	}
}

func FuzzReadKexInit(f *testing.F) {
	f.Add(kexInit("SSH-2.0-X\r\n", 20, tenLists, nil))
	f.Add([]byte("SSH-2.0-X\n\x00\x00\x00\x20\x04\x14"))
	f.Fuzz(func(t *testing.T, in []byte) {
		offer, err := readKexInit(bytes.NewReader(in))
		if err != nil {
			return
		}
		// What is accepted survives being written and read again.
		again, err := readKexInit(bytes.NewReader(kexInit(offer.version+"\r\n", msgKexInit, offer.lists[:], nil)))
		if err != nil || again != offer {
			t.Errorf("%+v became %+v, %v", offer, again, err)
		}
	})
}

// The offers that our own reader sees are those that x/crypto's server is
// configured with.
func TestProbeAlgorithms(t *testing.T) {
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.KeyExchanges = []string{"curve25519-sha256"}
	config.Ciphers = []string{"aes128-gcm@openssh.com"}
	config.MACs = []string{"hmac-sha2-256-etm@openssh.com"}
	s := sshtest.Start(t, sshtest.Options{Config: config})
	text, err := probeAlgorithms(t.Context(), s.Address)
	require.NoError(t, err)
	f := Facts{Facts: map[string]Fact{"wire-algorithms": {Output: text}}}
	assert.Contains(t, f.value("wire-algorithms", "kex"), "curve25519-sha256")
	assert.Equal(t, "ssh-ed25519", f.value("wire-algorithms", "hostkey"))
	assert.Equal(t, "aes128-gcm@openssh.com", f.value("wire-algorithms", "cipher-to-client"))
	assert.Equal(t, "hmac-sha2-256-etm@openssh.com", f.value("wire-algorithms", "mac-to-server"))
}

func TestProbesLeaveSilentPeer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 50_000_000)
	defer cancel()
	_, err = probeAlgorithms(ctx, l.Addr().String())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = probePassword(ctx, Target{Address: l.Addr().String(), User: "linux", Password: "pw", HostKey: sshtest.Signer(t).PublicKey()})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestProbePassword(t *testing.T) {
	refuse := errors.New("refused")
	password := func(_ ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
		if string(p) == "right" {
			return nil, nil
		}
		return nil, refuse
	}
	key := func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, refuse }
	questions := func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
		answers, err := ask("", "", []string{"Password: "}, []bool{false})
		if err != nil || len(answers) != 1 || answers[0] != "right" {
			return nil, refuse
		}
		return nil, nil
	}
	for _, tc := range []struct {
		name   string
		config ssh.ServerConfig
		want   string
		status Status
	}{
		{"keys only", ssh.ServerConfig{PublicKeyCallback: key}, "login refused\noffered publickey\ntried none\npartial \n", Pass},
		{"password accepted", ssh.ServerConfig{PublicKeyCallback: key, PasswordCallback: password}, "login accepted\n", Fail},
		{"password offered, refused", ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, refuse }},
			"login refused\noffered password\ntried none,password\n", Fail},
		{"questions accepted", ssh.ServerConfig{KeyboardInteractiveCallback: questions}, "login accepted\n", Fail},
		{"everybody let in", ssh.ServerConfig{NoClientAuth: true}, "login accepted\n", Fail},
		{"half a login", ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) {
			return nil, &ssh.PartialSuccessError{Next: ssh.ServerAuthCallbacks{PublicKeyCallback: key}}
		}}, "login refused\noffered publickey\ntried none\npartial password\n", Fail},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := sshtest.Start(t, sshtest.Options{Config: &tc.config})
			text, err := probePassword(t.Context(), Target{Address: s.Address, User: "linux", Password: "right", HostKey: s.HostKey})
			require.NoError(t, err)
			assert.True(t, strings.HasPrefix(text, tc.want), text)
			v := judgePasswordLogin(Facts{Facts: map[string]Fact{"wire-password": {Output: text}}}, Params{})
			assert.Equal(t, tc.status, v.Status, v)
		})
	}
	_, err := probePassword(t.Context(), Target{})
	require.EqualError(t, err, "the console showed no password to try")
}
