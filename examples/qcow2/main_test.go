package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// images makes a raw disk and images of it, and enters their directory.
func images(t *testing.T) []byte {
	t.Helper()
	t.Chdir(t.TempDir())
	disk := bytes.Repeat([]byte("0123456789abcdef"), 40000)
	copy(disk[300000:], make([]byte, 200000))
	for name, kind := range map[string]qcow2.Compression{"zlib.qcow2": qcow2.Zlib, "zstd.qcow2": qcow2.Zstd} {
		f, err := os.Create(name)
		require.NoError(t, err)
		_, err = qcow2.Compact(context.Background(), f, qcow2.Raw(bytes.NewReader(disk), int64(len(disk))), qcow2.CompactOptions{Compression: kind})
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	change := func(name string, edit func([]byte) []byte) {
		b, err := os.ReadFile("zlib.qcow2")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(name, edit(b), 0o600))
	}
	change("dirty.qcow2", func(b []byte) []byte { b[79] = 1; return b })
	change("trailing.qcow2", func(b []byte) []byte { return append(b, "#!/bin/sh"...) })
	change("backing.qcow2", func(b []byte) []byte {
		b[9+6], b[19] = 200, 3
		copy(b[112:], "\xe2\x79\x2a\xca\x00\x00\x00\x03raw")
		copy(b[200:], "raw")
		return b
	})
	change("leak.qcow2", func(b []byte) []byte { copy(b[len(b)-65536:], "\x00\x02"); return b })
	change("aes.qcow2", func(b []byte) []byte { b[35] = 1; return b })
	change("bits63.qcow2", func(b []byte) []byte { b[23] = 63; return b })
	inner, err := os.ReadFile("zlib.qcow2")
	require.NoError(t, err)
	f, err := os.Create("inner.qcow2")
	require.NoError(t, err)
	_, err = qcow2.Compact(context.Background(), f, qcow2.Raw(bytes.NewReader(inner), int64(len(inner))), qcow2.CompactOptions{})
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, os.WriteFile("text", []byte("not an image"), 0o600))
	require.NoError(t, os.WriteFile("raw", disk, 0o600))
	return disk
}

func TestExitCodes(t *testing.T) {
	disk := images(t)
	for line, want := range map[string]int{
		"":                                   2,
		"-h":                                 0,
		"frobnicate":                         2,
		"info":                               2,
		"info missing":                       2,
		"info text":                          2,
		"info -frob zlib.qcow2":              2,
		"info zlib.qcow2":                    0,
		"info dirty.qcow2":                   0,
		"info bits63.qcow2":                  2,
		"info -policy public zstd.qcow2":     0,
		"info -policy public dirty.qcow2":    1,
		"info -policy private dirty.qcow2":   0,
		"info -policy public trailing.qcow2": 1,
		"info -policy public bits63.qcow2":   1,
		"info -policy public text":           2,
		"info -policy strict zlib.qcow2":     2,
		"info -policy public -min-disk 1 zlib.qcow2":        0,
		"info -json -disk -policy public backing.qcow2":     2, // the guest's disk cannot be read
		"info -json -policy public backing.qcow2":           1,
		"info -disk -files . backing.qcow2":                 0,
		"check zlib.qcow2":                                  0,
		"check -json zstd.qcow2":                            0,
		"check leak.qcow2":                                  1,
		"check bits63.qcow2":                                2,
		"check text":                                        2,
		"map zlib.qcow2":                                    0,
		"map -json zlib.qcow2":                              0,
		"map backing.qcow2":                                 2,
		"map -files . backing.qcow2":                        0,
		"map -files missing backing.qcow2":                  2,
		"digest zlib.qcow2":                                 0,
		"digest text":                                       2,
		"digest -cross-check backing.qcow2":                 2,
		"digest -cross-check -f raw raw":                    2,
		"digest -snapshot one zlib.qcow2":                   2,
		"info -policy public inner.qcow2":                   1,
		"info -policy public aes.qcow2":                     1,
		"info -policy private aes.qcow2":                    0,
		"info -policy public -backing-chain zlib.qcow2":     2,
		"info -backing-chain backing.qcow2":                 2,
		"info -backing-chain -files . backing.qcow2":        0,
		"info -json -backing-chain -files . backing.qcow2":  0,
		"map -depth 1 -files . backing.qcow2":               0,
		"compare zlib.qcow2 zstd.qcow2":                     0,
		"compare zlib.qcow2 text":                           2,
		"compare zlib.qcow2":                                2,
		"convert zlib.qcow2 out.raw":                        0,
		"convert zlib.qcow2 missing/out.raw":                2,
		"convert text out2.raw":                             2,
		"compact -compression zstd -workers 2 zlib.qcow2 c": 0,
		"compact -compression lzma zlib.qcow2 c2":           2,
		"compact zlib.qcow2 -":                              2,
	} {
		t.Run(line, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			err := run(context.Background(), strings.Fields(line), &stdout, &stderr)
			got := 0
			if errors.Is(err, errFindings) {
				got = 1
			} else if err != nil {
				got = 2
			}
			assert.Equalf(t, want, got, "%v %s %s", err, &stdout, &stderr)
			if strings.Contains(line, "-json") && got < 2 {
				assert.True(t, json.Valid(stdout.Bytes()))
			}
		})
	}
	out, err := os.ReadFile("out.raw")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(disk, out))
	left, err := filepath.Glob(".*")
	require.NoError(t, err)
	assert.Empty(t, left, "temporary files remain")
	assert.NoFileExists(t, "out2.raw")
	assert.NoFileExists(t, "c2")
}

func TestOutput(t *testing.T) {
	disk := images(t)
	output := func(args ...string) string {
		var stdout bytes.Buffer
		if err := run(context.Background(), args, &stdout, new(bytes.Buffer)); err != nil {
			require.ErrorIs(t, err, errFindings)
		}
		return stdout.String()
	}
	assert.Equal(t, fmt.Sprintf("%x  zlib.qcow2\n", sha256.Sum256(disk)), output("digest", "zlib.qcow2"))
	assert.Equal(t, "dirty: the dirty bit is set: refcounts may be wrong\n", output("info", "-policy", "public", "dirty.qcow2"))

	var info struct {
		Filename    string
		VirtualSize int64         `json:"virtual-size"`
		ClusterSize int64         `json:"cluster-size"`
		Safety      *qcow2.Safety `json:"safety"`
		Specific    struct {
			Data map[string]any
		} `json:"format-specific"`
	}
	require.NoError(t, json.Unmarshal([]byte(output("info", "-json", "-policy", "public", "trailing.qcow2")), &info))
	assert.Equal(t, "trailing.qcow2", info.Filename)
	assert.Equal(t, int64(len(disk)), info.VirtualSize)
	assert.Equal(t, int64(65536), info.ClusterSize)
	assert.Equal(t, "zlib", info.Specific.Data["compression-type"])
	require.NotNil(t, info.Safety)
	assert.Equal(t, "public", info.Safety.Policy)
	require.Len(t, info.Safety.Findings, 1)
	assert.Equal(t, qcow2.FindTrailingData, info.Safety.Findings[0].Name)
	assert.NotContains(t, output("info", "-json", "zlib.qcow2"), "safety")

	var check map[string]any
	require.NoError(t, json.Unmarshal([]byte(output("check", "-json", "leak.qcow2")), &check))
	assert.Equal(t, 1.0, check["leaks"])
	assert.Equal(t, 0.0, check["corruptions"])
	assert.Equal(t, 0.0, check["check-errors"])
	assert.Contains(t, check, "image-end-offset")
}

// TestProgram builds the program and looks at its real exit codes and streams.
func TestProgram(t *testing.T) {
	bin := buildProgram(t)
	images(t)
	for _, test := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"check zlib.qcow2", 0, ""},
		{"check leak.qcow2", 1, ""},
		{"digest -cross-check zlib.qcow2", 0, ""},
		{"digest -cross-check zstd.qcow2", 0, ""},
		{"check text", 2, "qcow2: text: cannot check the image: not a qcow2 image: no qcow2 magic (value 0x6e6f7420 at offset 0)\n"},
	} {
		cmd := exec.Command(bin, strings.Fields(test.args)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		_ = cmd.Run()
		assert.Equal(t, test.code, cmd.ProcessState.ExitCode(), test.args)
		assert.Equal(t, test.stderr, stderr.String())
	}
}
