package imagefactory

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
)

// otherHost is another machine, with these packages by the command that lists them.
type otherHost struct {
	builder.Local
	lists map[string]string
}

func (h otherHost) Run(_ context.Context, c builder.Command) error {
	list, ok := h.lists[c.Args[0]]
	if !ok {
		return errors.New("not found")
	}
	_, err := fmt.Fprint(c.Stdout, list)
	return err
}

type stated struct {
	BuildDefinition struct {
		InternalParameters struct {
			Assurance struct {
				Level int    `json:"slsa_build_level"`
				Key   string `json:"key"`
				Build string `json:"build"`
			} `json:"assurance"`
		} `json:"internalParameters"`
		ResolvedDependencies []signing.Resource `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
}

// outside is a key, and a signer that reaches its secret part elsewhere.
func outside(t *testing.T) (*signing.Key, *signing.Signer) {
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "outside", Algorithm: signing.RSA3072, Time: func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }})
	require.NoError(t, err)
	var secret bytes.Buffer
	require.NoError(t, key.WriteSecret(&secret))
	list, err := openpgp.ReadArmoredKeyRing(&secret)
	require.NoError(t, err)
	signer, err := signing.NewSigner(key, signing.SignerConfig{External: list[0].PrivateKey.PrivateKey.(crypto.Signer)})
	require.NoError(t, err)
	return key, signer
}

// The provenance claims no more than is so, and names all that went in with digests.
func TestProvenanceIsHonestAndComplete(t *testing.T) {
	key, agent := outside(t)
	inside, err := signing.NewSigner(key, signing.SignerConfig{})
	require.NoError(t, err)
	dpkg := otherHost{lists: map[string]string{"dpkg-query": "ii  zlib 1 amd64\nrc  gone 1 all\nii  apt 2:3 amd64\n"}}
	for name, c := range map[string]struct {
		host   builder.Host
		signer *signing.Signer
		level  int
		key    string
		list   string
	}{
		"key here":             {builder.Local{}, nil, 2, "in the factory's process", "?"},
		"signer of a key here": {dpkg, inside, 2, "in the factory's process", "apt 2:3 amd64\nzlib 1 amd64\n"},
		"agent, built here":    {builder.Local{}, agent, 2, "with an agent", "?"},
		"built elsewhere":      {dpkg, nil, 2, "in the factory's process", "apt 2:3 amd64\nzlib 1 amd64\n"},
		"agent, elsewhere":     {dpkg, agent, 3, "with an agent", "apt 2:3 amd64\nzlib 1 amd64\n"},
		"a machine of rpm":     {otherHost{lists: map[string]string{"rpm": "ii bash 5-1 x86_64\n"}}, agent, 3, "with an agent", "bash 5-1 x86_64\n"},
		"of neither":           {otherHost{}, agent, 3, "with an agent", ""},
		"hostile":              {otherHost{lists: map[string]string{"dpkg-query": strings.Repeat("ii a b c d\nx\n", 9), "rpm": "\x00"}}, nil, 2, "in", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, d := newFactory(t)
			f.Host, f.Signer, f.Key = c.host, c.signer, key
			j := beginRun(t, f, d)
			digest := strings.Repeat("0123456789abcdef", 4)
			dir := sealListed(t, j, &ledger.Listing{Contents: map[string][]byte{"/var/lib/dpkg/status": []byte(dpkgStatus)}},
				[]signing.Resource{{Name: "index/x_InRelease", Digest: map[string]string{"sha256": digest}}})
			base := filepath.Join(dir, "Standard_Test_1-20261122-031507")
			list, err := os.ReadFile(base + buildHostSuffix)
			require.NoError(t, err)
			if c.list != "?" {
				require.Equal(t, c.list, string(list))
			}
			data, err := os.ReadFile(base + ".provenance.json")
			require.NoError(t, err)
			keyring, err := signing.PinKeys(key)
			require.NoError(t, err)
			v := signing.Verifier{Keyring: keyring}
			statement, _, err := v.Envelope(t.Context(), "provenance", bytes.NewReader(data))
			require.NoError(t, err)
			var p stated
			require.NoError(t, json.Unmarshal(statement.Predicate, &p))
			a := p.BuildDefinition.InternalParameters.Assurance
			require.Equal(t, c.level, a.Level, "%+v", a)
			require.Contains(t, a.Key, c.key)
			byName := map[string]signing.Resource{}
			for _, m := range p.BuildDefinition.ResolvedDependencies {
				byName[m.Name] = m
				require.True(t, m.URI != "" || len(m.Digest["sha256"]) == 64, "%+v", m)
			}
			for _, want := range []string{filepath.Base(base) + ".config.tar.gz", filepath.Base(base) + ".packages", filepath.Base(base) + buildHostSuffix, "config/nightly.yaml", "config/README", "index/x_InRelease"} {
				require.Contains(t, byName, want)
			}
			require.Equal(t, digest, byName["index/x_InRelease"].Digest["sha256"])
		})
	}
}
