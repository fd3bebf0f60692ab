package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// qemuImg runs qemu-img in dir and returns its standard output.
func qemuImg(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	img := needs.Tools(t, "qemu-img")[0]
	cmd := exec.Command(img, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoErrorf(t, err, "qemu-img %v: %s", args, stderr.Bytes())
	return out
}

// names returns the names of an image's findings under a policy.
func names(info *qcow2.Info, p qcow2.Policy) []string {
	out := []string{}
	for _, f := range info.Safety(p).Findings {
		out = append(out, f.Name)
	}
	return out
}

func inspectFile(t testing.TB, path string) (*qcow2.Info, error) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return qcow2.Inspect(bytes.NewReader(b), int64(len(b)))
}

func TestInspectAgainstQEMU(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "raw"), bytes.Repeat([]byte("guest data "), 100000), 0o644))
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "base.qcow2", "10M")
	for name, test := range map[string]struct {
		make     [][]string
		findings []string
	}{
		"zlib":         {[][]string{{"convert", "-c", "-O", "qcow2", "raw", "zlib"}}, []string{}},
		"zstd":         {[][]string{{"convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", "raw", "zstd"}}, []string{}},
		"plain":        {[][]string{{"convert", "-O", "qcow2", "raw", "plain"}}, []string{}},
		"large":        {[][]string{{"create", "-q", "-f", "qcow2", "large", "20G"}}, []string{}},
		"v2":           {[][]string{{"create", "-q", "-f", "qcow2", "-o", "compat=0.10", "v2", "1G"}}, []string{}},
		"extended":     {[][]string{{"create", "-q", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=128k", "extended", "1G"}}, []string{}},
		"preallocated": {[][]string{{"create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "preallocated", "1G"}}, []string{}},
		"lazy":         {[][]string{{"create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on,refcount_bits=1,cluster_size=512", "lazy", "10M"}}, []string{}},
		"bitmaps":      {[][]string{{"create", "-q", "-f", "qcow2", "bitmaps", "1G"}, {"bitmap", "--add", "bitmaps", "b1"}}, []string{}},
		"backing":      {[][]string{{"create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "backing"}}, []string{qcow2.FindBackingFile}},
		"snapshots":    {[][]string{{"create", "-q", "-f", "qcow2", "snapshots", "1G"}, {"snapshot", "-c", "one", "snapshots"}}, []string{qcow2.FindSnapshots}},
		"external":     {[][]string{{"create", "-q", "-f", "qcow2", "-o", "data_file=external.raw,data_file_raw=on", "external", "10M"}}, []string{qcow2.FindDataFile}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, args := range test.make {
				qemuImg(t, dir, args...)
			}
			info, err := inspectFile(t, filepath.Join(dir, name))
			require.NoError(t, err)
			assert.Equal(t, test.findings, names(info, qcow2.Policy{}))
			assert.Equal(t, len(test.findings) == 0, info.Safety(qcow2.Policy{}).Safe)

			ours, err := json.Marshal(info)
			require.NoError(t, err)
			var got, want map[string]any
			require.NoError(t, json.Unmarshal(ours, &got))
			require.NoError(t, json.Unmarshal(qemuImg(t, dir, "info", "--output=json", name), &want))
			for _, key := range []string{"filename", "actual-size", "full-backing-filename"} {
				delete(want, key) // of the file, not of what is in it
			}
			for key := range want {
				assert.Equal(t, want[key], got[key], key)
			}
		})
	}
}

// emptyImage returns a valid image of an empty disk of 64 MiB: a cluster each
// for header, refcount table, refcount block and L1 table.
func emptyImage() []byte {
	b := make([]byte, 4<<16)
	for offset, v := range map[int]uint64{
		0: 0x514649fb_00000003, 16: 16, 24: 64 << 20, 32: 1, 40: 3 << 16, 48: 1 << 16, 56: 1 << 32, 96: 4<<32 | 112,
		1 << 16: 2 << 16, 2 << 16: 0x0001_0001_0001_0001,
	} {
		binary.BigEndian.PutUint64(b[offset:], v)
	}
	return b
}

// image returns an empty image, and lets change edit it.
func image(change func(b []byte) []byte) *bytes.Reader {
	b := emptyImage()
	if change != nil {
		b = change(b)
	}
	return bytes.NewReader(b)
}

// put32 and put64 change one big-endian field of an image.
func put32(offset int, v uint32) func([]byte) []byte {
	return func(b []byte) []byte { binary.BigEndian.PutUint32(b[offset:], v); return b }
}

func put64(offset int, v uint64) func([]byte) []byte {
	return func(b []byte) []byte { binary.BigEndian.PutUint64(b[offset:], v); return b }
}

// with makes one change of several.
func with(changes ...func([]byte) []byte) func([]byte) []byte {
	return func(b []byte) []byte {
		for _, change := range changes {
			b = change(b)
		}
		return b
	}
}

// extension writes a header extension.
func extension(at int, kind qcow2.ExtensionType, data string) func([]byte) []byte {
	return func(b []byte) []byte {
		binary.BigEndian.PutUint32(b[112+at:], uint32(kind))
		binary.BigEndian.PutUint32(b[116+at:], uint32(len(data)))
		copy(b[120+at:], data)
		return b
	}
}

// bitmapsAt is the data of a bitmaps extension with a directory in the L1
// table's cluster.
func bitmapsAt(count uint32) string {
	b := make([]byte, 24)
	binary.BigEndian.PutUint32(b, count)
	binary.BigEndian.PutUint64(b[8:], 32)
	binary.BigEndian.PutUint64(b[16:], 3<<16)
	return string(b)
}

// TestBackingNameInHeader reads a name that is nowhere, which QEMU accepts.
func TestBackingNameInHeader(t *testing.T) {
	r := image(put64(8, 16))
	info, err := qcow2.Inspect(r, r.Size())
	require.NoError(t, err)
	assert.Empty(t, info.BackingFile)
	assert.False(t, info.Safety(qcow2.Policy{}).Safe)
	result, err := qcow2.Check(context.Background(), r, r.Size())
	require.NoError(t, err)
	assert.True(t, result.Clean())
	opened, err := qcow2.Open(r, r.Size(), qcow2.OpenOptions{})
	require.NoError(t, err)
	require.NoError(t, opened.Close())
	// The padding of the last extension may reach over the area's end.
	r = image(with(put64(8, 131), put32(16, 1), extension(0, 0x12345678, "01234567890")))
	info, err = qcow2.Inspect(r, r.Size())
	require.NoError(t, err)
	assert.Len(t, info.Extensions, 1)
	// A name ends where C ends a string.
	r = image(with(put64(8, 200), put32(16, 5), func(b []byte) []byte { copy(b[200:], "a\x00../b"); return b }))
	info, err = qcow2.Inspect(r, r.Size())
	require.NoError(t, err)
	assert.Equal(t, "a", info.BackingFile)
}

func TestInspectHostile(t *testing.T) {
	for name, test := range map[string]struct {
		change  func([]byte) []byte
		kind    error
		offset  int64
		finding string
	}{
		"nothing":           {func([]byte) []byte { return nil }, qcow2.ErrNotQCOW2, 0, ""},
		"other magic":       {put32(0, 0x7f454c46), qcow2.ErrNotQCOW2, 0, ""},
		"version 1":         {put32(4, 1), qcow2.ErrUnsupported, 4, ""},
		"cut header":        {func(b []byte) []byte { return b[:100] }, qcow2.ErrMalformed, 100, ""},
		"cut version":       {func(b []byte) []byte { return b[:5] }, qcow2.ErrMalformed, 5, ""},
		"cluster_bits 63":   {put32(20, 63), qcow2.ErrMalformed, 20, qcow2.FindInvalidValue},
		"cluster_bits 8":    {put32(20, 8), qcow2.ErrMalformed, 20, qcow2.FindInvalidValue},
		"unknown feature":   {put64(72, 1<<40), qcow2.ErrUnsupported, 72, qcow2.FindUnknownFeatures},
		"unknown autoclear": {put64(88, 1<<40), nil, 88, qcow2.FindUnknownFeatures},
		"dirty":             {put64(72, 1), nil, 72, qcow2.FindDirty},
		"corrupt":           {put64(72, 2), nil, 72, qcow2.FindCorrupt},
		"data file":         {with(put64(72, 4), extension(0, qcow2.ExtDataFile, "d")), nil, 72, qcow2.FindDataFile},
		"unknown crypt":     {put32(32, 3), qcow2.ErrUnsupported, 32, qcow2.FindUnknownFeatures},
		"crypt":             {put32(32, 1), nil, 32, qcow2.FindEncryption},
		"size":              {put64(24, 1<<63), qcow2.ErrMalformed, 24, qcow2.FindSizeOverflow},
		"small L1":          {put32(36, 0), qcow2.ErrMalformed, 36, qcow2.FindInvalidValue},
		"huge L1":           {put32(36, 0xffffffff), qcow2.ErrMalformed, 36, qcow2.FindInvalidValue},
		"L1 unaligned":      {put64(40, 0x30001), qcow2.ErrMalformed, 40, qcow2.FindInvalidValue},
		"L1 outside":        {put64(40, 1<<40), nil, 40, qcow2.FindTableOutside},
		"L1 overflow":       {put64(40, 0xffffffffffff0000), qcow2.ErrMalformed, 40, qcow2.FindSizeOverflow},
		"refcounts outside": {put64(48, 1<<40), nil, 48, qcow2.FindTableOutside},
		"refcount_order 7":  {put32(96, 7), qcow2.ErrMalformed, 96, qcow2.FindInvalidValue},
		"huge refcounts":    {put32(56, 0xffffffff), qcow2.ErrMalformed, 56, qcow2.FindInvalidValue},
		"header_length":     {put32(100, 1<<31), qcow2.ErrMalformed, 100, qcow2.FindInvalidValue},
		"snapshots":         {put32(60, 70000), qcow2.ErrMalformed, 60, qcow2.FindInvalidValue},
		"snapshots outside": {func(b []byte) []byte { return put64(64, 1<<40)(put32(60, 1)(b)) }, nil, 64, qcow2.FindTableOutside},
		"backing name":      {func(b []byte) []byte { return put64(8, 65000)(put32(16, 1000)(b)) }, qcow2.ErrMalformed, 8, qcow2.FindBackingFile},
		"extension":         {func(b []byte) []byte { return put32(112, 0xe2792aca)(put32(116, 0xfffffff0)(b)) }, qcow2.ErrMalformed, 116, qcow2.FindInvalidValue},
		// What QEMU refuses too.
		"data file without a name":      {put64(72, 4), qcow2.ErrMalformed, 72, qcow2.FindInvalidValue},
		"raw without data file":         {put64(88, 2), qcow2.ErrMalformed, 88, qcow2.FindInvalidValue},
		"LUKS without its header":       {put32(32, 2), qcow2.ErrMalformed, 32, qcow2.FindInvalidValue},
		"LUKS header without LUKS":      {extension(0, qcow2.ExtEncryption, string(make([]byte, 16))), qcow2.ErrMalformed, 120, qcow2.FindInvalidValue},
		"no snapshots, unaligned":       {put64(64, 1), qcow2.ErrMalformed, 64, qcow2.FindInvalidValue},
		"no snapshots, out of range":    {put64(64, 1<<63), qcow2.ErrMalformed, 64, qcow2.FindSizeOverflow},
		"no L1 table, unaligned":        {with(put64(24, 0), put32(36, 0), put64(40, 8)), qcow2.ErrMalformed, 40, qcow2.FindInvalidValue},
		"end marker with a length":      {put32(116, 1<<20), qcow2.ErrMalformed, 116, qcow2.FindInvalidValue},
		"version 2 with an extension":   {with(put32(4, 2), put64(72, 4<<56|1<<20)), qcow2.ErrMalformed, 76, qcow2.FindInvalidValue},
		"long format name":              {extension(0, qcow2.ExtBackingFormat, "0123456789abcdef"), qcow2.ErrMalformed, 120, qcow2.FindInvalidValue},
		"bitmaps of another length":     {extension(0, qcow2.ExtBitmaps, "123"), qcow2.ErrMalformed, 120, qcow2.FindInvalidValue},
		"second bitmaps extension":      {with(put64(88, 1), extension(0, qcow2.ExtBitmaps, bitmapsAt(1)), extension(32, qcow2.ExtBitmaps, bitmapsAt(0))), qcow2.ErrMalformed, 152, qcow2.FindInvalidValue},
		"bitmap directory without them": {with(put64(88, 1), extension(0, qcow2.ExtBitmaps, bitmapsAt(1))), qcow2.ErrMalformed, 3 << 16, qcow2.FindInvalidValue},
		"snapshot with much extra data": {with(put32(60, 1), put64(64, 3<<16), put32(3<<16+36, 1025)), qcow2.ErrMalformed, 3<<16 + 36, qcow2.FindInvalidValue},
		"trailing data":                 {func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) }, nil, 0x40000, qcow2.FindTrailingData},
	} {
		t.Run(name, func(t *testing.T) {
			r := image(test.change)
			info, err := qcow2.Inspect(r, r.Size())
			if test.kind != nil {
				require.ErrorIs(t, err, test.kind)
				var format *qcow2.FormatError
				require.ErrorAs(t, err, &format)
				assert.Equal(t, test.offset, format.Offset)
			} else {
				require.NoError(t, err)
			}
			if test.finding == "" {
				assert.Nil(t, info)
				return
			}
			safety := info.Safety(qcow2.PublicPolicy())
			assert.False(t, safety.Safe)
			assert.Contains(t, names(info, qcow2.Policy{}), test.finding)
		})
	}
}

func TestPolicies(t *testing.T) {
	r := image(put64(72, 1))
	info, err := qcow2.Inspect(r, r.Size())
	require.NoError(t, err)
	assert.False(t, info.Safety(qcow2.Policy{}).Safe)
	assert.Equal(t, "public", info.Safety(qcow2.Policy{}).Policy)
	assert.True(t, info.Safety(qcow2.PrivatePolicy()).Safe)
	assert.Equal(t, []string{qcow2.FindMinDisk}, names(info, qcow2.Policy{Allow: []string{qcow2.FindDirty}, MinDiskBytes: 1 << 20}))
	assert.Equal(t, []string{qcow2.FindDirty}, names(info, qcow2.Policy{MinDiskBytes: info.VirtualSize}))
}

func BenchmarkInspect(b *testing.B) {
	r := image(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := qcow2.Inspect(r, r.Size()); err != nil {
			b.Fatal(err)
		}
	}
}
