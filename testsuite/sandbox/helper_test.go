package sandbox

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/sshtest"
)

// The test binary stands in for QEMU where the variable helperEnv is set: it
// takes QEMU's arguments, prints a console, and serves SSH on the forwarded
// port. What it cannot show is a guest; TestBootImage has one.
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
	port := regexp.MustCompile(`hostfwd=tcp:127\.0\.0\.1:(\d+)-:22`).FindStringSubmatch(args)[1]
	if mode == "busy-once" {
		if f, err := os.OpenFile(os.Getenv("HELPER_DIR")+"/busy", os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			_ = f.Close()
			fmt.Fprintf(os.Stderr, "qemu: -netdev user: Could not set up host forwarding rule 'tcp:127.0.0.1:%s-:22'\n", port)
			return 1
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
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
	sshtest.Serve(l, served, sshtest.Options{})
	return 0
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
