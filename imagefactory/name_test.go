package imagefactory

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseName(t *testing.T) {
	dated := func(build int, date string, count int) Suffix {
		return Suffix{Kind: Dated, Build: build, Date: date, Count: count}
	}
	for text, want := range map[string]Name{
		"Standard_CentOS_7_latest":                      {Standard, "CentOS_7", Suffix{Kind: Latest}},
		"Standard_CentOS_7_prev":                        {Standard, "CentOS_7", Suffix{Kind: Prev}},
		"Standard_CentOS_7":                             {Standard, "CentOS_7", Suffix{}},
		"Standard_CentOS_7_134_20171211_0":              {Standard, "CentOS_7", dated(134, "20171211", 0)},
		"Standard_Fedora_26_20171021_0":                 {Standard, "Fedora_26", dated(0, "20171021", 0)},
		"Standard_CentOS_7_BMS_latest":                  {Standard, "CentOS_7_BMS", Suffix{Kind: Latest}},
		"Standard_CentOS_7_FPGA_prev":                   {Standard, "CentOS_7_FPGA", Suffix{Kind: Prev}},
		"Standard_Debian_12_amd64_bios_latest":          {Standard, "Debian_12_amd64_bios", Suffix{Kind: Latest}},
		"Standard_Debian_12_amd64_bios_20261122_3":      {Standard, "Debian_12_amd64_bios", dated(0, "20261122", 3)},
		"Enterprise_SLES11_SP4_126_20180504_0":          {Enterprise, "SLES11_SP4", dated(126, "20180504", 0)},
		"Enterprise_SLES11_SP4_extended_101_20180504_1": {Enterprise, "SLES11_SP4_extended", dated(101, "20180504", 1)},
		"Community_Ubuntu_16.04_TSI_20171116_0":         {Community, "Ubuntu_16.04_TSI", dated(0, "20171116", 0)},
		"CCE_EulerOS_2_BMS_latest":                      {CCE, "EulerOS_2_BMS", Suffix{Kind: Latest}},
		"Beta_OracleLinux_7UEK_BMS_latest":              {Beta, "OracleLinux_7UEK_BMS", Suffix{Kind: Latest}},
		"Standard_openSUSE-Leap_15.6":                   {Standard, "openSUSE-Leap_15.6", Suffix{}},
		"CentOS 7.3 64bit vivado":                       {"", "CentOS 7.3 64bit vivado", Suffix{}},
		"ims_test":                                      {"", "ims_test", Suffix{}},
	} {
		got, err := ParseName(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
		assert.Equal(t, text, got.String())
	}
	for _, text := range []string{
		"", " x", "x ", "a/b", "ä", "a\nb", strings.Repeat("x", 129), "Standard_", "Standard__latest",
		"Standard_CentOS_7_20171340_0", "Standard_CentOS_7_20171211_00",
	} {
		_, err := ParseName(text)
		assert.Error(t, err, "%q", text)
	}
	assert.NoError(t, CheckName(strings.Repeat("x", 128)))
}

func TestNameOrder(t *testing.T) {
	sorted := []string{
		"Community_Ubuntu_14.04_TSI_latest",
		"Enterprise_SLES12_SP3_latest",
		"Standard_Debian_8.7_latest",
		"Standard_Debian_9_20180101_0",
		"Standard_Debian_9_20180101_2",
		"Standard_Debian_9_20180101_10",
		"Standard_Debian_9_20180102_0",
		"Standard_Debian_9_prev",
		"Standard_Debian_9_latest",
		"Standard_Debian_10_latest",
		"Standard_Debian_12_latest",
		"Standard_Debian_12_amd64_bios_latest",
		"Standard_Ubuntu_16.04_latest",
		"Standard_Ubuntu_18.04_latest",
	}
	names := make([]Name, len(sorted))
	for i, text := range sorted {
		var err error
		names[i], err = ParseName(text)
		require.NoError(t, err)
	}
	for i, a := range names {
		for j, b := range names {
			assert.Equal(t, i < j, a.Compare(b) < 0, "%s and %s", a, b)
			assert.Equal(t, i == j, a.Compare(b) == 0, "%s and %s", a, b)
		}
	}
	shuffled := slices.Clone(names)
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	slices.SortFunc(shuffled, Name.Compare)
	assert.Equal(t, names, shuffled)
}

func TestNameParts(t *testing.T) {
	n, err := ParseName("Enterprise_SLES12_SP1_SAPHANA_BMS_latest")
	require.NoError(t, err)
	assert.Equal(t, []string{"SAPHANA", "BMS"}, n.Variants())
	assert.Equal(t, "Enterprise_SLES12_SP1_SAPHANA_BMS", n.Base().String())
	assert.Equal(t, n.Base().Latest(), n)
	assert.Equal(t, "Enterprise_SLES12_SP1_SAPHANA_BMS_prev", n.Prev().String())
	east := time.Date(2018, 5, 5, 1, 0, 0, 0, time.FixedZone("east", 7200))
	assert.Equal(t, "Enterprise_SLES12_SP1_SAPHANA_BMS_20180504_1", n.Dated(east, 1).String())

	n, err = ParseName("Standard_Debian_12_amd64_bios")
	require.NoError(t, err)
	assert.Equal(t, []string{"amd64", "bios"}, n.Variants())

	var back Name
	data, err := json.Marshal(n)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &back))
	assert.Equal(t, n, back)
	_, err = json.Marshal(Name{})
	assert.Error(t, err)
	var class Class
	require.NoError(t, json.Unmarshal([]byte(`"Beta"`), &class))
	assert.Error(t, json.Unmarshal([]byte(`"beta"`), &class))
}

func FuzzParseName(f *testing.F) {
	for _, seed := range []string{"Standard_CentOS_7_134_20171211_0", "Standard_CentOS_7_latest", "_", "A_1_2_20180101_3", "x_prev_latest", "0_00_20180101_1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseName(text)
		if err != nil {
			return
		}
		if n.String() != text {
			t.Fatalf("%q comes back as %q", text, n)
		}
		again, err := ParseName(n.String())
		if err != nil || again != n {
			t.Fatalf("%q: %+v, then %+v, %v", text, n, again, err)
		}
		if n.Compare(again) != 0 {
			t.Fatalf("%q differs from itself", text)
		}
	})
}
