package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
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
		{"misspelt flag", []string{"-props", "-", "-flavor", "s9.large.2"}, `{"__support_kvm":"true","__support_xne":"true"}`, 0, `finding   unknown flag "__support_xne"`},
		{"unknown value", []string{"-props", "-", "-flavor", "s9.large.2"}, `{"__support_kvm":"true","__support_kvm_gpu_type": "RTX5000"}`, 0, "RTX5000"},
		{"values that are no strings", []string{"-props", "-", "-flavor", "s9.large.2"}, `{"__support_kvm": true, "min_disk": 4, "virtual_size": null, "tags": []}`, 0, "s9.large.2   yes"},
		{"mask against flags", []string{"-props", "-", "-flavor", "s9.large.2"}, `{"__support_kvm":"true","__image_capabilities":"0x6"}`, 1, "__image_capabilities and __support_xen: the mask claims it"},
		{"nothing to judge by", []string{"-props", "-"}, `{"itemNotFound": {"code": 404}}`, 0, "no property says what the image can do"},
		{"a data disk", []string{"-props", "-", "-flavor", "s9.large.2"}, `{"__support_kvm":"true","virtual_env_type":"DataImage"}`, 1, "no, needs !data-image"},
		{"Arm of Glance", []string{"-props", "-", "-flavor", "s9.large.2"}, `{"architecture":"aarch64","hw_firmware_type":"uefi","properties":{"__support_kvm":"true"}}`, 1, "no, needs !arm64"},
		{"a volume", []string{"-props", "-", "-flavor", "s9.large.2"}, `{"volume":{"volume_image_metadata":{"image_name":"web","__support_kvm":"true"}}}`, 0, "image     web"},
		{"a list", []string{"-props", "-", "-flavor", "s9.large.2"}, `{"images":[{"name":"one","__support_kvm":"true"},{"name":"two","__support_xen":"true"}]}`, 1, "image     two"},
		{"a size that is not on record", []string{"-mask", "4", "-flavor", "s9.64xlarge.2"}, "", 0, "finding   flavor s9.64xlarge.2 is not on record"},
		{"what is not on record", []string{"-mask", "4", "-flavor", "c7t.28xlarge.4.physical"}, "", 1, "unknown, needs something that is not on record"},
		{"extra specs", []string{"-mask", "4", "-extra-specs", "-"}, `{"flavor":{"name":"n1","extra_specs":{"ecs:virtualization_env_types":"CloudCompute","ecs:performancetype":"normal"}}}`, 0, "flavor    n1           yes"},
		{"extra specs of a named flavor", []string{"-mask", "4", "-flavor", "n1", "-extra-specs", "-"}, `{"extra_specs":{"ecs:virtualization_env_types":"FusionCompute","x":"1"}}`, 1, `finding   flavor n1: unknown extra spec "x"`},
		{"extra specs, one of a list", []string{"-mask", "4", "-flavor", "b", "-extra-specs", "-"}, `{"flavors":[{"name":"a","os_extra_specs":{}},{"name":"b","os_extra_specs":{"resource_type":"ironic"}}]}`, 1, "flavor    b            no, needs ironic"},
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
		{"not JSON", []string{"-props", "-"}, "{", 2, "not JSON at byte 1"},
		{"not an object", []string{"-props", "-"}, "null", 2, "want a JSON object"},
		{"a flag that is null", []string{"-props", "-"}, `{"__support_kvm": null}`, 2, "property __support_kvm is null"},
		{"a flag that is there twice", []string{"-props", "-"}, `{"__support_kvm": "true", "__support_kvm": "false"}`, 2, "there twice"},
		{"an empty flavor", []string{"-mask", "1", "-flavor", ""}, "", 2, "-flavor has an empty value"},
		{"an empty mask", []string{"-mask", ""}, "", 2, "-mask has an empty value"},
		{"an empty image", []string{"-image", "", "-mask", "1"}, "", 2, "-image has an empty value"},
		{"an empty file name", []string{"-props="}, "", 2, "-props has an empty value"},
		{"an empty name of specs", []string{"-mask", "1", "-extra-specs", ""}, "", 2, "-extra-specs has an empty value"},
		{"a word that people know", []string{"-mask", "kvm"}, "", 2, "the nearest known is kvm-virtio"},
		{"standard input twice", []string{"-props", "-", "-extra-specs", "-"}, "{}", 2, "only one of"},
		{"extra specs without the flavor", []string{"-mask", "1", "-flavor", "c", "-extra-specs", "-"}, `{"flavors":[{"name":"a","extra_specs":{}}]}`, 2, `unknown flavor "c"`},
		{"extra specs that are a list of nothing", []string{"-mask", "1", "-extra-specs", "-"}, `[]`, 2, "the list is empty"},
		{"too large", []string{"-props", "-"}, strings.Repeat(" ", 8<<20+1), 2, "more than"},
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
		"findings": [],
		"flavors": [{"name": "s2.large.4", "answer": "yes", "accepted": true, "missing": [], "live_migration": true, "withdrawn": false}]
	}`, stdout)

	code, stdout, _ = execute("", "-mask", "0x4", "-flavor", "d1.xlarge", "-format", "json")
	assert.Equal(t, 1, code)
	assert.JSONEq(t, `{
		"mask": "0x4",
		"bits": ["kvm-virtio"],
		"flags": {"__support_kvm": "true", "__is_support_kvm": "true", "virtual_env_type": "FusionCompute"},
		"conflicts": [],
		"findings": [],
		"flavors": [{"name": "d1.xlarge", "answer": "no", "accepted": false, "missing": ["xen-classic|xen-pvops", "disk-intensive", "ixgbevf"], "live_migration": false, "withdrawn": true}]
	}`, stdout)

	code, stdout, _ = execute("", "-image", "Standard_Debian_9", "-format", "json")
	assert.Equal(t, 0, code)
	var all capabilities.Description
	require.NoError(t, json.Unmarshal([]byte(stdout), &all))
	assert.Equal(t, "Standard_Debian_9", all.Image)
	assert.Len(t, all.Flavors, len(capabilities.Families()))

	const images = `{"images":[{"name":"one","__support_kvm":"true"},{"name":"two","__support_xen":"true"}]}`
	code, stdout, _ = execute(images, "-props", "-", "-flavor", "s2", "-format", "json")
	assert.Equal(t, 1, code)
	var list []capabilities.Description
	require.NoError(t, json.Unmarshal([]byte(stdout), &list))
	require.Len(t, list, 2)
	assert.Equal(t, "yes", list[0].Flavors[0].Answer)
	assert.Equal(t, []capabilities.Need{{AnyOf: capabilities.KVMVirtio}}, list[1].Flavors[0].Missing)
}

// The two forms say the same, flavor by flavor.
func TestTextAndJSONAgree(t *testing.T) {
	for _, e := range imagefactory.Catalog() {
		_, text, _ := execute("", "-image", e.Name.String())
		_, data, _ := execute("", "-image", e.Name.String(), "-format", "json")
		var d capabilities.Description
		require.NoError(t, json.Unmarshal([]byte(data), &d))
		var again strings.Builder
		require.NoError(t, d.WriteText(&again))
		require.Equal(t, text, again.String())
		for _, v := range d.Flavors {
			require.Equal(t, v.Answer == "yes", v.Accepted)
			require.Equal(t, v.Accepted, len(v.Missing) == 0)
		}
	}
}

// A failing output is not a success.
func TestWriteError(t *testing.T) {
	var stderr bytes.Buffer
	for _, format := range []string{"text", "json"} {
		assert.Equal(t, 2, run([]string{"-mask", "4", "-format", format}, nil, failing{}, &stderr))
	}
	assert.Contains(t, stderr.String(), "the pipe is closed")
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("the pipe is closed") }
