package signing_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// Seal a release directory and verify it.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "release")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "Standard_Debian_12.qcow2")
	if err := os.WriteFile(image, []byte("image"), 0o644); err != nil {
		log.Fatal(err)
	}

	key, err := signing.GenerateKey(signing.KeyConfig{Name: "Image Factory", Email: "factory@example.com"})
	if err != nil {
		log.Fatal(err)
	}
	signer, err := signing.NewSigner(key, signing.SignerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := signing.SignDir(ctx, dir, signer); err != nil {
		log.Fatal(err)
	}

	keyring, err := signing.PinKeys(key)
	if err != nil {
		log.Fatal(err)
	}
	result, err := signing.VerifyDir(ctx, dir, keyring)
	fmt.Println(result.OK(), err)

	if err := os.WriteFile(image, []byte("other image"), 0o644); err != nil {
		log.Fatal(err)
	}
	result, err = signing.VerifyDir(ctx, dir, keyring)
	for _, f := range result.Files {
		fmt.Println(strings.TrimSpace(fmt.Sprint(f.Name, " ", f.Status, " ", f.Reason)))
	}
	fmt.Println(errors.Is(err, signing.DigestDiffers))
	// Output:
	// true <nil>
	// SHA256SUMS good
	// Standard_Debian_12.qcow2 bad the content differs from SHA256SUMS
	// Standard_Debian_12.qcow2.asc good
	// true
}

// A key counts for a span of time and for a purpose, whatever it says itself.
func ExampleNewKeyring() {
	ctx := context.Background()
	march := time.Date(2024, time.March, 1, 0, 0, 0, 0, time.UTC)
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "Image Factory", Time: func() time.Time { return march }})
	if err != nil {
		log.Fatal(err)
	}
	signer, err := signing.NewSigner(key, signing.SignerConfig{Time: func() time.Time { return march.AddDate(0, 0, 7) }})
	if err != nil {
		log.Fatal(err)
	}
	sealer := &signing.Sealer{Signers: []*signing.Signer{signer}}
	sig, _, err := sealer.Detached(ctx, "a.qcow2", strings.NewReader("image"))
	if err != nil {
		log.Fatal(err)
	}
	for _, pin := range []signing.Pin{
		{From: march, Until: march.AddDate(1, 0, 0), Purposes: []signing.Purpose{signing.ForImage}},
		{Until: march.AddDate(0, 0, 1)},
		{Purposes: []signing.Purpose{signing.ForRepository}},
	} {
		pin.Fingerprint = key.Fingerprint()
		keyring, err := signing.NewKeyring([]signing.Pin{pin}, key)
		if err != nil {
			log.Fatal(err)
		}
		v := &signing.Verifier{Keyring: keyring}
		result, err := v.Detached(ctx, "a.qcow2", strings.NewReader("image"), strings.NewReader(string(sig)))
		if result == nil {
			log.Fatal(err)
		}
		fmt.Println(strings.TrimSpace(fmt.Sprint(result.Files[0].Status, " ", result.Files[0].Reason)))
	}
	// Output:
	// good
	// untrusted the key did not count at that time
	// untrusted the key is for another purpose
}

// kms stands for a service that has the key.
type kms struct{ secret *ecdsa.PrivateKey }

func (k kms) Public() crypto.PublicKey { return k.secret.Public() }

func (k kms) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignContext(context.Background(), rand, digest, opts)
}

func (k kms) SignContext(ctx context.Context, rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := ctx.Err(); err != nil { // here the service would be asked
		return nil, err
	}
	return k.secret.Sign(rand, digest, opts)
}

// Seal a release directory with a key that is in an HSM or a KMS, behind a
// crypto.Signer or, as here, a ContextSigner.
func ExampleSignDir_cryptoSigner() {
	ctx := context.Background()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	module := kms{secret}

	// Once: make the OpenPGP key for it, which is public, and keep that.
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "Image Factory", Signer: module})
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "release")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "a.qcow2"), []byte("image"), 0o644); err != nil {
		log.Fatal(err)
	}

	signer, err := signing.NewSigner(key, signing.SignerConfig{External: module})
	if err != nil {
		log.Fatal(err)
	}
	files, err := signing.SignDir(ctx, dir, signer)
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range files {
		fmt.Println(f.Name)
	}
	keyring, err := signing.PinKeys(key)
	if err != nil {
		log.Fatal(err)
	}
	_, err = signing.VerifyDir(ctx, dir, keyring)
	fmt.Println(err)
	// Output:
	// a.qcow2
	// a.qcow2.asc
	// <nil>
}

// Seal a release directory with a key that is in gpg-agent. The agent has the
// secret; the public key comes from `gpg --export`.
func ExampleSignDir_agent() {
	ctx := context.Background()
	public, err := os.Open("imagefactory.gpg")
	if err != nil {
		log.Fatal(err)
	}
	defer public.Close()
	keys, err := signing.ReadKeys(public)
	if err != nil {
		log.Fatal(err)
	}
	signer, err := signing.NewAgentSigner(ctx, keys[0], signing.AgentConfig{}, signing.SignerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := signing.SignDir(ctx, "release", signer); err != nil {
		log.Fatal(err)
	}
}

// Verify what a distribution publishes: its signed list of checksums, and the
// one image of that list which was downloaded.
func ExampleVerifier_Checksums() {
	keyring, err := signing.LoadKeyring("/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg")
	if err != nil {
		log.Fatal(err)
	}
	v := &signing.Verifier{Keyring: keyring, IgnoreMissing: true}
	result, err := v.Checksums(context.Background(), "SHA256SUMS", "SHA256SUMS.gpg")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(result)
}
