package signing_test

import (
	"context"
	"errors"
	"fmt"
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
