package sandbox

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/netguest"
	"github.com/opentelekomcloud/go-imagefactory/internal/sshtest"
)

// The test binary stands in for QEMU where the variable helperEnv is set: it
// takes QEMU's arguments, prints a console, and serves SSH on the
// network. What it cannot show is a guest; TestBootImage has one.
const helperEnv = "IMAGEFACTORY_SANDBOX_HELPER"

const helperPassword = "cOrRecthOrse42"

func TestMain(m *testing.M) {
	if mode := os.Getenv(helperEnv); mode != "" {
		os.Exit(helper(mode))
	}
	os.Exit(m.Run())
}

func helper(mode string) int {
	args := strings.Join(os.Args[1:], " ")
	if strings.HasPrefix(args, "create ") { // qemu-img
		return 0
	}
	fmt.Println("SeaBIOS\r\n\x1b[1mDebian GNU/Linux 12\x1b[0m\r")
	switch mode {
	case "machines": // boots several in QEMU and is killed by its test
		q, image := QEMU{Accel: "tcg", MemoryMiB: 64, CPUs: 1}, Image{Path: os.Getenv("HELPER_IMAGE"), WorkDir: os.Getenv("HELPER_DIR")}
		for range 2 {
			go func() { _, _ = q.Boot(context.Background(), image) }()
		}
		_, _ = q.Boot(context.Background(), image)
		return 0
	case "die":
		fmt.Printf("Login hint: user linux, password %s (emergency console access only)\r\n", helperPassword)
		fmt.Fprintln(os.Stderr, "qemu-system-x86_64: disk on fire")
		return 3
	case "silent":
		for { // select{} would be a deadlock where nothing else runs
			time.Sleep(time.Hour)
		}
	case "parent": // boots one of "silent" and is killed by its test
		_ = os.Setenv(helperEnv, "silent")
		q := QEMU{Binary: os.Args[0], Img: os.Args[0], Accel: "tcg"}
		_, _ = q.Boot(context.Background(), Image{Path: os.Getenv("HELPER_IMAGE"), WorkDir: os.Getenv("HELPER_DIR")})
		return 0
	}
	if mode == "no-network" || mode == "no-prompt" {
		fmt.Printf("[ 1.0] Linux version 6.1\r\nsystemd[1]: started\r\n")
		if mode == "no-network" {
			fmt.Printf("%s\r\n%s root@x\r\n%s\r\n", keysBegin, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(newSigner().PublicKey()))), keysEnd)
		}
		fmt.Printf("\x1b[31mFAILED\x1b[0m \u202eto write: No space left on device\a\r\n")
		for {
			time.Sleep(time.Hour)
		}
	}
	l, err := guestOnWire(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 4
	}
	shown, served := newSigner(), newSigner()
	if mode != "wrong-key" {
		served = shown
	}
	fmt.Printf("<14>cloud-init: #####\r\n%s\r\n%s root@x\r\n%s\r\n", keysBegin,
		strings.TrimSpace(string(ssh.MarshalAuthorizedKey(shown.PublicKey()))), keysEnd)
	fmt.Printf("Login hint: user linux, password %s (emergency console access only)\r\nx login: ", helperPassword)
	switch mode {
	case "frozen":
		for {
			if _, err := l.Accept(); err != nil {
				return 5
			}
		}
	case "no-sudo":
		sshtest.Serve(l, served, sshtest.Options{Exec: func(command string, ch ssh.Channel) int {
			if !strings.HasPrefix(command, "sudo ") {
				return 0
			}
			_, _ = fmt.Fprint(ch.Stderr(), "sudo: a password\x1b[2J\u202e is required\n"+strings.Repeat("x", 1<<20))
			return 1
		}})
	case "stalls":
		sshtest.Serve(l, served, sshtest.Options{Exec: func(command string, _ ssh.Channel) int {
			if strings.HasPrefix(command, "sudo ") {
				return -1
			}
			return 0
		}})
	}
	sshtest.Serve(l, served, sshtest.Options{})
	return 0
}

// guestOnWire listens on port 22 of a guest at the descriptor that QEMU inherits.
func guestOnWire(args string) (net.Listener, error) {
	mac, err := net.ParseMAC(regexp.MustCompile(`mac=([0-9a-f:]+)`).FindStringSubmatch(args)[1])
	if err != nil {
		return nil, err
	}
	address := netip.AddrFrom4([4]byte{192, 168, 0, 10 + mac[5]%200}) // what DHCP would give
	gateway := netip.MustParseAddr("192.168.0.1")
	g := netguest.New(os.NewFile(3, "network"), mac, []netip.Prefix{netip.PrefixFrom(address, 24)}, gateway, netip.MustParseAddr("fe80::1"))
	return g.Listen(netip.AddrPortFrom(address, 22))
}

func newSigner() ssh.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	s, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		panic(err)
	}
	return s
}

// qcow2File writes an empty image of 4 GiB whose header change may spoil: a
// cluster each for the header, the refcount table, a refcount block and the L1
// table.
func qcow2File(t *testing.T, change func(header []byte)) string {
	t.Helper()
	const cluster = 1 << 16
	be := binary.BigEndian
	image := make([]byte, 4*cluster)
	copy(image, "QFI\xfb")
	be.PutUint32(image[4:], 3)          // version
	be.PutUint32(image[20:], 16)        // cluster_bits
	be.PutUint64(image[24:], 4<<30)     // size
	be.PutUint32(image[36:], 8)         // l1_size
	be.PutUint64(image[40:], 3*cluster) // l1_table_offset
	be.PutUint64(image[48:], cluster)   // refcount_table_offset
	be.PutUint32(image[56:], 1)         // refcount_table_clusters
	be.PutUint32(image[96:], 4)         // refcount_order
	be.PutUint32(image[100:], 104)      // header_length
	be.PutUint64(image[cluster:], 2*cluster)
	for i := range 4 {
		be.PutUint16(image[2*cluster+2*i:], 1)
	}
	if change != nil {
		change(image)
	}
	path := filepath.Join(t.TempDir(), "image.qcow2")
	require.NoError(t, os.WriteFile(path, image, 0o600))
	return path
}
