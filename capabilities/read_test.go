package capabilities

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// One image, as each API and tool shows it.
func TestReadImages(t *testing.T) {
	const flags = `"__support_kvm": "true", "__os_type": "Linux", "hw_firmware_type": "uefi"`
	want := Image{Name: "web", ID: "bc6b", Properties: Flags{"__support_kvm": "true", "hw_firmware_type": "uefi"}}
	for _, tt := range []struct {
		name, json string
		isList     bool
	}{
		{"Glance v2, flat", `{"id": "bc6b", "name": "web", "min_disk": 4, "protected": false, "virtual_size": null, "tags": ["a", {}], ` + flags + `}`, false},
		{"Glance v1", `{"image": {"id": "bc6b", "name": "web", "properties": {` + flags + `}}}`, false},
		{"Glance, list", `{"images": [{"id": "bc6b", "name": "web", ` + flags + `}], "first": "/v2/images", "next": null}`, true},
		{"a list of images", `[{"ID": "bc6b", "Name": "web", ` + flags + `}]`, true},
		{"openstack image show", `{"id": "bc6b", "name": "web", "properties": {"os_hidden": false, "stores": ["a"], ` + flags + `}}`, false},
		{"openstack image show, before 2020", `{"id": "bc6b", "name": "web", "properties": "__support_kvm='true', __os_type='Linux, of some kind', hw_firmware_type='uefi'"}`, false},
		{"metadata of Nova", `{"metadata": {"image_name": "web", "metering.image_id": "x", "image_id": "bc6b", ` + flags + `}}`, false},
		{"a server of Nova", `{"server": {"id": "5", "name": "host", "image": {"id": "bc6b"}, "flavor": {"id": "s2"}, "metadata": {"image_name": "web", "image_id": "bc6b", ` + flags + `}}}`, false},
		{"servers", `{"servers": [{"id": "5", "metadata": {"image_name": "web", "image_id": "bc6b", ` + flags + `}}]}`, true},
		{"a volume", `{"volume": {"id": "5", "name": "disk", "bootable": "true", "metadata": {"readonly": "False"}, "volume_image_metadata": {"image_id": "bc6b", "image_name": "web", ` + flags + `}}}`, false},
		{"volumes", `{"volumes": [{"id": "5", "volume_image_metadata": {"image_id": "bc6b", "image_name": "web", ` + flags + `}}]}`, true},
		{"volume_image_metadata", `{"volume_image_metadata": {"image_id": "bc6b", "image_name": "web", ` + flags + `}}`, false},
		{"a map", `{"image_id": "bc6b", "image_name": "web", ` + flags + `}`, false},
		{"with a byte order mark", "\xef\xbb\xbf" + `{"image_id": "bc6b", "image_name": "web", ` + flags + `}`, false},
		{"said twice the same", `{"id": "bc6b", "name": "web", ` + flags + `, "properties": {` + flags + `}}`, false},
	} {
		images, isList, err := ReadImages(strings.NewReader(tt.json))
		require.NoError(t, err, tt.name)
		require.Len(t, images, 1, tt.name)
		assert.Equal(t, tt.isList, isList, tt.name)
		assert.Equal(t, want.Name, images[0].Name, tt.name)
		assert.Equal(t, want.ID, images[0].ID, tt.name)
		for name, value := range want.Properties {
			assert.Equal(t, value, images[0].Properties[name], tt.name)
		}
	}
}

// Values that are no strings are read where they can be and passed over else.
func TestReadImagesOtherValues(t *testing.T) {
	images, _, err := ReadImages(strings.NewReader(`{"__support_kvm": true, "__support_xen": false, "__image_capabilities": 1073741828,
		"min_disk": 40, "min_ram": 1e3, "checksum": null, "links": [{"rel": "self"}], "locations": {"a": {"b": []}}, "checksum": null, "min_disk": 4}`))
	require.NoError(t, err)
	assert.Equal(t, Flags{"__support_kvm": "true", "__support_xen": "false", "__image_capabilities": "1073741828", "min_disk": "4", "min_ram": "1e3"}, images[0].Properties)

	images, _, err = ReadImages(strings.NewReader(`{"__support_kvm_gpu_type": {"a": 1}, "__support_kvm": ["true"]}`))
	require.NoError(t, err)
	_, err = FromFlags(images[0].Properties)
	assert.ErrorContains(t, err, "__support_kvm_gpu_type")
	assert.ErrorContains(t, err, "property __support_kvm:")
}

func manyProperties() string {
	var b strings.Builder
	for i := range maxProperties {
		fmt.Fprintf(&b, `, "a%d": "1"`, i)
	}
	return b.String()
}

func TestReadPairs(t *testing.T) {
	for text, want := range map[string]object{
		"":                         nil,
		"a='b'":                    {{"a", "b"}},
		`a='b', c="d", e=f , g=`:   {{"a", "b"}, {"c", "d"}, {"e", "f"}, {"g", ""}},
		"a='it's, so', b='x=y'":    {{"a", "it's, so"}, {"b", "x=y"}},
		`f='{"on":"true"}',h=''  `: {{"f", `{"on":"true"}`}, {"h", ""}},
		"'a'='b' c='d'":            {{"a", "b' c='d"}},
	} {
		got, err := readPairs(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"a", "='b'", "a='b", "a='b', c"} {
		_, err := readPairs(text)
		assert.Error(t, err, text)
	}
}

func TestReadImagesRefuses(t *testing.T) {
	for input, says := range map[string]string{
		``:                                   "cannot read images: not JSON at byte 0",
		`{`:                                  "not JSON at byte 1",
		`{"a": }`:                            "a syntax error",
		`{"__support_kvm": "true"} {}`:       "something follows",
		`null`:                               "want a JSON object",
		`"text"`:                             "want a JSON object",
		`17`:                                 "want a JSON object",
		`[]`:                                 "the list is empty",
		`{"images": []}`:                     "the list is empty",
		`{"image": null}`:                    "image is null",
		`{"volumes": null}`:                  "volumes is null",
		`{"image": {}, "image": {}}`:         "image is there twice",
		`{"images": [{}], "images": [{}]}`:   "images is there twice",
		`[{"name": "a"}, null]`:              "entry 2 of the list",
		`{"__support_kvm": null}`:            "property __support_kvm is null",
		`{"__is_support_kvm": null}`:         "property __is_support_kvm is null",
		`{"virtual_env_type": null}`:         "property virtual_env_type is null",
		`{"architecture": null}`:             "property architecture is null",
		`{"__image_capabilities": null}`:     "property __image_capabilities is null",
		`{"properties": "a='b"}`:             "a quoted value has no end",
		`{"properties": "a"}`:                "want pairs",
		strings.Repeat("[", 1000):            "nested too deeply",
		strings.Repeat(`{"a":`, 100):         "nested too deeply",
		strings.Repeat(" ", maxInput+1):      "more than",
		`{"a": "1"` + manyProperties() + `}`: "more than 1000 properties",
		`{"images": [{}, {"architecture": null}]}`:                                                    "cannot read image 2",
		`{"__support_kvm": "true", "__support_kvm": "false"}`:                                         "twice, with different values",
		`{"hw_firmware_type": "bios", "properties": {"hw_firmware_type": "uefi"}}`:                    "twice, with different values",
		`{"volume": {"volume_image_metadata": {"__support_xen": "true", "__support_xen": "secret"}}}`: "twice, with different values",
	} {
		_, _, err := ReadImages(strings.NewReader(input))
		require.Error(t, err, "%.60s", input)
		assert.Contains(t, err.Error(), says, "%.60s", input)
		assert.NotContains(t, err.Error(), "secret")
	}
}

func FuzzReadImages(f *testing.F) {
	f.Add(`{"images": [{"name": "a", "__support_kvm": true, "properties": "a='b', c=d"}]}`)
	f.Add(`{"server": {"metadata": {"image_name": "x", "__support_xen": "True"}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		images, _, err := ReadImages(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, image := range images {
			d, err := Families().DescribeImage(image, "s2")
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			if err := d.WriteText(&out); err != nil || strings.ContainsAny(out.String(), "\x00\x1b\r") {
				t.Fatalf("%q, %v", out.String(), err)
			}
		}
	})
}

// What FromFlags finds stands beside the answers.
func TestDescribeImage(t *testing.T) {
	d, err := Families().DescribeImage(Image{Name: "web", Properties: Flags{
		"__support_kvm": "true", "__support_kvm_gpu_type": "RTX5000", "__support_kmv": "true", "architecture": "mips", MaskProperty: "xen-pvops",
	}}, "s2.large.4", "s1")
	require.NoError(t, err)
	assert.Equal(t, "web", d.Image)
	assert.True(t, d.Flavors[0].Accepted)
	assert.False(t, d.Flavors[1].Accepted)
	text := strings.Join(d.Findings, "\n")
	for _, says := range []string{
		`unknown flag "__support_kmv"`, `property __support_kvm_gpu_type: unknown value "RTX5000"`, `architecture: unknown value "mips"`,
		"__image_capabilities and __support_xen: the mask claims it and the flag does not",
		"__image_capabilities and __support_kvm: the flag says it and the mask does not claim it",
	} {
		assert.Contains(t, text, says)
	}
	assert.False(t, d.Good(), "the mask contradicts")

	d, err = Families().DescribeImage(Image{Properties: Flags{"__support_kvm": "true", "__support_kvm_gpu_type": "RTX5000"}}, "s2")
	require.NoError(t, err)
	assert.True(t, d.Good(), "what is not known is no fault")
	d, err = Families().DescribeImage(Image{ID: "5", Properties: Flags{"__os_type": "Linux"}}, "s2")
	require.NoError(t, err)
	assert.Equal(t, []string{"no property says what the image can do"}, d.Findings)
	assert.Equal(t, "5", d.Image)
	for _, env := range []string{"DataImage", "IsoImage"} {
		d, err = Families().DescribeImage(Image{Properties: Flags{"__support_kvm": "true", "virtual_env_type": env}})
		require.NoError(t, err)
		for _, v := range d.Flavors {
			assert.Equal(t, "no", v.Answer, "%s on %s", env, v.Name)
		}
	}
	_, err = Families().DescribeImage(Image{}, "nope")
	assert.Error(t, err)
}
