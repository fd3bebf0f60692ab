// Package s3test runs a real S3 gateway, versitygw, with TLS on loopback for tests.
//
// The gateway is built once from the module in gateway/, which pins it, into the
// user's cache. Its dependencies are not the library's.
package s3test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// The gateway's only user and its region.
const (
	AccessKey = "s3testaccess"
	SecretKey = "s3test-secret-key-0001" //nolint:gosec // of a gateway on loopback that ends with the test
	Region    = "eu-de"
)

const program = "github.com/versity/versitygw/cmd/versitygw"

// version is that of gateway/go.mod; it names the program in the cache.
const version = "v1.8.0"

// A Gateway serves the directories below Dir as buckets.
type Gateway struct {
	URL  string // https://127.0.0.1:PORT
	Dir  string
	CA   string // the file of its certificate
	pool *x509.CertPool
}

// Start runs a gateway with the buckets until the test ends.
func Start(t testing.TB, buckets ...string) *Gateway {
	t.Helper()
	bin, err := build(t)
	if err != nil {
		needs.Missing(t, "the S3 gateway cannot be built: "+err.Error())
	}
	base := t.TempDir()
	g := &Gateway{Dir: filepath.Join(base, "data"), CA: filepath.Join(base, "cert.pem")}
	key := filepath.Join(base, "key.pem")
	if g.pool, err = certificate(g.CA, key); err != nil {
		t.Fatal(err)
	}
	for _, b := range buckets {
		if err := os.MkdirAll(filepath.Join(g.Dir, b), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	address := free(t)
	g.URL = "https://" + address
	log, err := os.Create(filepath.Join(base, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--port", address, "--region", Region, "--cert", g.CA, "--key", key, "--quiet", "--keep-alive", "posix", g.Dir)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKey, "ROOT_SECRET_KEY="+SecretKey)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	for range 600 {
		conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: g.pool}}).Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return g
		}
		time.Sleep(50 * time.Millisecond)
	}
	text, _ := os.ReadFile(log.Name())
	t.Fatalf("the S3 gateway does not answer: %.2000s", text)
	return nil
}

// Transport returns a transport that trusts the gateway.
func (g *Gateway) Transport() *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: g.pool}, MaxIdleConnsPerHost: 16, DisableCompression: true}
}

func build(t testing.TB) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "go-imagefactory")
	bin := filepath.Join(dir, "versitygw-"+version)
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	_, file, _, _ := runtime.Caller(0)
	temp := filepath.Join(t.TempDir(), "versitygw")
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", temp, program)
	cmd.Dir = filepath.Join(filepath.Dir(file), "gateway")
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %.500s", err, out)
	}
	// By one rename, for tests of other packages may build it, too.
	beside := fmt.Sprintf("%s.%d", bin, os.Getpid())
	data, err := os.ReadFile(temp)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(beside, data, 0o755); err != nil { //nolint:gosec // a program
		return "", err
	}
	return bin, os.Rename(beside, bin)
}

func free(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// certificate writes a new certificate for loopback and its key.
func certificate(certFile, keyFile string) (*x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "s3test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, err
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool, nil
}
