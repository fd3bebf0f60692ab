package capabilities

import (
	"encoding/json"
	"errors"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sets calls f with every set of at most two known bits, with sets of many
// random bits, known and unknown, with sets of few, and with sets of as many as
// go together.
func sets(t *testing.T, f func(Set)) {
	t.Helper()
	f(0)
	known := Known.Bits()
	for i, a := range known {
		f(a)
		for _, b := range known[i+1:] {
			f(a | b)
		}
	}
	random := rand.New(rand.NewPCG(1, 2)) // the same sets on every run
	for range 8000 {
		f(Set(random.Uint64()))
		var few Set
		for range 1 + random.IntN(7) {
			few |= 1 << random.IntN(40)
		}
		f(few)
	}
	for range 3000 {
		var full Set
		if random.IntN(4) == 0 {
			full = ARM64 | UEFI
		}
		for _, i := range random.Perm(len(known)) {
			if more := full | known[i]; random.IntN(8) > 0 && len(more.Conflicts()) == 0 {
				full = more
			}
		}
		f(full)
	}
}

func TestParseReadsEveryForm(t *testing.T) {
	sets(t, func(s Set) {
		for _, text := range []string{s.String(), s.Hex(), s.Decimal()} {
			got, err := Parse(text)
			require.NoError(t, err)
			require.Equal(t, s, got, text)
		}
		data, err := json.Marshal(s)
		require.NoError(t, err)
		var got Set
		require.NoError(t, json.Unmarshal(data, &got))
		require.Equal(t, s, got, string(data))
	})
}

// The positions are on record in published images: this table only grows.
func TestLayoutIsAppendOnly(t *testing.T) {
	layout := []string{
		"xen-classic", "xen-pvops", "kvm-virtio", "ixgbevf", "xen-scsi", "scsi-ep-front", "nvme", "hi1822", "infiniband",
		"m60-vgpu", "m60", "p100", "v100", "t4", "ascend-310", "fpga-vu9p", "fpga-vu9p-common",
		"large-memory", "disk-intensive", "high-performance", "hana-xen", "hana-kvm", "ironic", "bms-network-config",
		"bios", "uefi", "arm64", "amd", "multiqueue", "live-resize", "uvp-monitor", "cloud-init",
		"v100-vgpu", "p2v-v100", "m60-kvm", "data-image", "iso-image",
	}
	for i, name := range layout {
		got, err := Parse(name)
		require.NoError(t, err)
		assert.Equal(t, Set(1)<<i, got, name)
	}
	assert.Len(t, layout, bits.OnesCount64(uint64(Known)))
	assert.Equal(t, ISOImage, Set(1)<<36)
}

func TestParse(t *testing.T) {
	for text, want := range map[string]Set{
		"0":                            0,
		"5":                            XenClassic | KVMVirtio,
		"0x5":                          XenClassic | KVMVirtio,
		"0X5":                          XenClassic | KVMVirtio,
		"18446744073709551615":         ^Set(0),
		" kvm-virtio ,  ixgbevf\n":     KVMVirtio | IXGBEVF,
		"KVM_VIRTIO|scsi_ep_front|0x1": KVMVirtio | SCSIEPFront | XenClassic,
	} {
		got, err := Parse(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", " ", "|", "18446744073709551616", "0x", "0xg", "-1", "1.5", "5kvm", "kvm-virtio|nope"} {
		_, err := Parse(text)
		assert.Error(t, err, text)
	}
	_, err := Parse("kvm-virtoi")
	var unknown *UnknownNameError
	require.ErrorAs(t, err, &unknown)
	assert.Equal(t, "kvm-virtio", unknown.Nearest[0])
}

// The word that people know leads to the capability's name.
func TestParseSuggestsWhatIsMeant(t *testing.T) {
	for word, want := range map[string][]string{
		"kvm": {"kvm-virtio"}, "KVM": {"kvm-virtio"}, "virtio": {"kvm-virtio"}, "xen": {"xen-classic", "xen-pvops"}, "efi": {"uefi"},
		"gpu": {"m60-vgpu", "m60", "p100", "v100", "t4", "v100-vgpu", "p2v-v100", "m60-kvm"}, "vgpu": {"m60-vgpu", "v100-vgpu"},
		"arm": {"arm64"}, "aarch64": {"arm64"}, "x86_64": {"amd"}, "bms": {"ironic", "bms-network-config"}, "hana": {"hana-xen", "hana-kvm"},
		"sr-iov": {"ixgbevf", "hi1822"}, "ib": {"infiniband"}, "legacy": {"bios"}, "cuda": {"p100", "v100", "p2v-v100"},
		"__support_kvm": {"kvm-virtio"}, "__is_support_xen_hana": {"hana-xen"}, "hw_firmware_type": {"bios", "uefi"},
	} {
		_, err := Parse(word)
		var unknown *UnknownNameError
		require.ErrorAs(t, err, &unknown, word)
		assert.Equal(t, want, unknown.Nearest, word)
		assert.Equal(t, word, unknown.Name)
	}
	for word, s := range synonyms {
		assert.NotContains(t, names, word)
		assert.Zero(t, s&^Known, word)
		assert.NotZero(t, s, word)
	}
}

// Zero values print and fail by name.
func TestZeroErrors(t *testing.T) {
	for _, err := range []error{&UnknownNameError{}, &ValueError{}, &ConflictError{}, &UnprovenError{}} {
		assert.NotEmpty(t, err.Error())
		assert.NotContains(t, err.Error(), "%!")
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"0", "0x1f|kvm-virtio", "xen-pvops, 12", "x", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		if err != nil || again != s {
			t.Fatalf("%q: %v reads back as %v, %v", text, s, again, err)
		}
	})
}

func TestSet(t *testing.T) {
	s := XenPVOps | KVMVirtio
	assert.True(t, s.Has(KVMVirtio))
	assert.True(t, s.Has(0))
	assert.False(t, s.Has(KVMVirtio|BIOS))
	assert.Equal(t, []Set{XenPVOps, KVMVirtio}, s.Bits())
	assert.Equal(t, "xen-pvops|0x8000000000000000", (XenPVOps | 1<<63).String())
	assert.Equal(t, "0", Set(0).String())
	assert.Empty(t, Set(0).Bits())
}

func isConflict(err error) bool {
	var conflict *ConflictError
	return errors.As(err, &conflict)
}
