package vex_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/vex"
)

var update = flag.Bool("update", false, "write the golden files")

func example() *vex.Document {
	product := vex.Product{ID: "pkg:generic/Standard_Debian_12@20261122-031507", SHA256: strings.Repeat("a", 64), Subcomponents: []string{"pkg:deb/debian/openssl@3.0.14-1?arch=source"}}
	return &vex.Document{
		ID: "https://example.com/vex/Standard_Debian_12/20261122-031507", Author: "https://example.com/factory", Created: time.Date(2026, 11, 22, 3, 15, 7, 0, time.UTC),
		Statements: []vex.Statement{
			{Vulnerability: "CVE-2026-0001", Products: []vex.Product{product}, Status: vex.Affected, Action: "accepted until 2026-12-31: not reachable"},
			{Vulnerability: "CVE-2026-0002", Products: []vex.Product{{ID: product.ID}}, Status: vex.NotAffected, Justification: "component_not_present"},
			{Vulnerability: "CVE-2026-0003", Products: []vex.Product{product}, Status: vex.UnderInvestigation, Notes: "<b>"},
		},
	}
}

func TestWriteIsReadBack(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, vex.Write(&b, example()))
	const golden = "testdata/example.vex.json"
	if *update {
		require.NoError(t, os.WriteFile(golden, b.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
	d, err := vex.Read(&b)
	require.NoError(t, err)
	require.Equal(t, example(), d)
}

func TestRefuses(t *testing.T) {
	for want, spoil := range map[string]func(*vex.Document){
		"its ID is no IRI":                  func(d *vex.Document) { d.ID = "1" },
		"no author":                         func(d *vex.Document) { d.Author = "" },
		"no time":                           func(d *vex.Document) { d.Created = time.Time{} },
		"no statement":                      func(d *vex.Document) { d.Statements = nil },
		"statement 1: it names no vuln":     func(d *vex.Document) { d.Statements[0].Vulnerability = "" },
		"statement 1: it names no product":  func(d *vex.Document) { d.Statements[0].Products = nil },
		"statement 1: its status":           func(d *vex.Document) { d.Statements[0].Status = "ok" },
		"statement 2: its justification":    func(d *vex.Document) { d.Statements[1].Justification = "because" },
		"why the product is not affected":   func(d *vex.Document) { d.Statements[1].Justification = "" },
		"what is done about it":             func(d *vex.Document) { d.Statements[0].Action = "" },
		"a product's ID is no IRI":          func(d *vex.Document) { d.Statements[0].Products[0].ID = "image" },
		"a product's SHA-256 is none":       func(d *vex.Document) { d.Statements[0].Products[0].SHA256 = "ab" },
		"a subcomponent's ID is no IRI":     func(d *vex.Document) { d.Statements[0].Products[0].Subcomponents[0] = "a b" },
		"statement 3: its justification is": func(d *vex.Document) { d.Statements[2].Justification = "component_not_present" },
	} {
		d := example()
		spoil(d)
		var b bytes.Buffer
		require.ErrorContains(t, vex.Write(&b, d), want)
		require.Empty(t, b.Bytes())
	}
	for name, text := range map[string]string{"empty": "", "no JSON": "x", "another version": `{"@context": "https://openvex.dev/ns/v0.0.1"}`, "no time": `{"@context": "https://openvex.dev/ns/v0.2.0", "version": 1}`} {
		_, err := vex.Read(strings.NewReader(text))
		require.Error(t, err, name)
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	require.NoError(f, vex.Write(&b, example()))
	f.Add(b.String())
	f.Fuzz(func(t *testing.T, text string) {
		d, err := vex.Read(strings.NewReader(text))
		if err != nil {
			return
		}
		var b bytes.Buffer
		require.NoError(t, vex.Write(&b, d))
	})
}

func ExampleRead() {
	f, err := os.Open("testdata/example.vex.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	d, err := vex.Read(f)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range d.Statements {
		fmt.Println(s.Vulnerability, s.Status)
	}
	// Output:
	// CVE-2026-0001 affected
	// CVE-2026-0002 not_affected
	// CVE-2026-0003 under_investigation
}
