package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

var update = flag.Bool("update", false, "write the golden files")

func execute(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// Every image of the catalog has its table under testdata.
func TestGoldenTables(t *testing.T) {
	seen := make(map[string]bool)
	for _, e := range imagefactory.Catalog() {
		name := e.Name.String()
		code, got, stderr := execute("", "-image", name+"_latest")
		require.Equal(t, 0, code, stderr)
		file := filepath.Join("testdata", name+".txt")
		seen[file] = true
		if *update {
			require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, string(want), got, "%s: run with -update if this is right", name)
	}
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	for _, file := range files {
		assert.True(t, seen[file], "%s is of no image", file)
	}
}

func TestExitCodes(t *testing.T) {
	props := filepath.Join(t.TempDir(), "props.json")
	require.NoError(t, os.WriteFile(props, []byte(`{"__support_kvm": "true", "__os_type": "Linux"}`), 0o600))
	for _, tt := range []struct {
		name  string
		args  []string
		stdin string
		code  int
		says  string // on stdout for 0 and 1, else on stderr
	}{
		{"accepted", []string{"-image", "Standard_CentOS_7", "-flavor", "s2.large.4"}, "", 0, "s2.large.4   yes, migrated live"},
		{"refused", []string{"-image", "Standard_CentOS_6", "-flavor", "h2.3xlarge.10"}, "", 1, "no, needs infiniband"},
		{"accepted with other properties", []string{"-image", "Standard_CentOS_7", "-flavor", "h2.3xlarge.10"}, "", 0, "__support_kvm_infiniband=true"},
		{"refused is good without -flavor", []string{"-mask", "0x4"}, "", 0, "no, needs"},
		{"names as mask", []string{"-mask", "kvm-virtio|large-memory", "-flavor", "s2"}, "", 0, "__is_support_largememory=true"},
		{"decimal mask", []string{"-mask", "4", "-flavor", "computev1-1"}, "", 1, "needs xen-classic|xen-pvops"},
		{"conflict", []string{"-mask", "xen-pvops|hana-xen"}, "", 1, "conflict  __support_xen excludes __support_xen_hana"},
		{"properties", []string{"-props", props, "-flavor", "c3.large.2"}, "", 0, "yes"},
		{"properties in conflict", []string{"-props", "-"}, `{"__support_kvm":"true","__support_kvm_gpu_type":"V100"}`, 1, "__support_kvm_gpu_type"},
		{"spellings in conflict", []string{"-props", "-"}, `{"__support_kvm":"true","__is_support_kvm":"false"}`, 1, "__is_support_kvm excludes __support_kvm"},
		{"dated name", []string{"-image", "Standard_CentOS_7_134_20171211_0"}, "", 0, "mask"},
		{"help", []string{"-h"}, "", 0, "usage:"},

		{"nothing", nil, "", 2, "usage:"},
		{"two sources", []string{"-mask", "1", "-image", "Standard_CentOS_7"}, "", 2, "usage:"},
		{"an argument", []string{"-mask", "1", "x"}, "", 2, "usage:"},
		{"unknown option", []string{"-x"}, "", 2, "-x"},
		{"unknown format", []string{"-mask", "1", "-format", "xml"}, "", 2, "usage:"},
		{"unknown image", []string{"-image", "Standard_CentOS_9"}, "", 2, "there are Standard_CentOS_6"},
		{"unknown flavor", []string{"-mask", "1", "-flavor", "s2.lagre.4"}, "", 2, "s2.large.4"},
		{"unknown capability", []string{"-mask", "kvm-vitrio"}, "", 2, "kvm-virtio"},
		{"no file", []string{"-props", props + "x"}, "", 2, "no such file"},
		{"not JSON", []string{"-props", "-"}, "{", 2, "JSON object of strings"},
		{"not an object", []string{"-props", "-"}, "null", 2, "JSON object of strings"},
		{"not strings", []string{"-props", "-"}, `{"__support_kvm": true}`, 2, "JSON object of strings"},
		{"unknown value", []string{"-props", "-"}, `{"__support_kvm_gpu_type": "RTX5000"}`, 2, "RTX5000"},
		{"too large", []string{"-props", "-"}, strings.Repeat(" ", maxProps+1), 2, "more than"},
	} {
		code, stdout, stderr := execute(tt.stdin, tt.args...)
		assert.Equal(t, tt.code, code, "%s: %s", tt.name, stderr)
		if tt.code == 2 {
			assert.Contains(t, stderr, tt.says, tt.name)
			assert.Empty(t, stdout, tt.name)
		} else {
			assert.Contains(t, stdout, tt.says, tt.name)
			assert.Empty(t, stderr, tt.name)
		}
	}
}

func TestJSON(t *testing.T) {
	code, stdout, _ := execute("", "-mask", "0x1005", "-flavor", "s2.large.4", "-format", "json")
	assert.Equal(t, 1, code)
	assert.JSONEq(t, `{
		"mask": "0x1005",
		"bits": ["xen-classic", "kvm-virtio", "v100"],
		"flags": {},
		"conflicts": [["__support_xen", "__support_kvm_gpu_type"], ["__support_kvm", "__support_kvm_gpu_type"]],
		"flavors": [{"name": "s2.large.4", "accepted": true, "missing": [], "live_migration": true}]
	}`, stdout)

	code, stdout, _ = execute("", "-mask", "0x4", "-flavor", "d1.xlarge", "-format", "json")
	assert.Equal(t, 1, code)
	assert.JSONEq(t, `{
		"mask": "0x4",
		"bits": ["kvm-virtio"],
		"flags": {"__support_kvm": "true", "__is_support_kvm": "true", "virtual_env_type": "FusionCompute"},
		"conflicts": [],
		"flavors": [{"name": "d1.xlarge", "accepted": false, "missing": ["xen-classic|xen-pvops", "disk-intensive", "ixgbevf"], "live_migration": false}]
	}`, stdout)

	code, stdout, _ = execute("", "-image", "Standard_Debian_9", "-format", "json")
	assert.Equal(t, 0, code)
	var all struct{ Flavors []json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(stdout), &all))
	assert.Len(t, all.Flavors, 35)
}
