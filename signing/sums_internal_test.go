package signing

import (
	"path/filepath"
	"strings"
	"testing"
)

// FuzzSums: a listing that is read names only files that may be opened, and
// reads the same when it is written again.
func FuzzSums(f *testing.F) {
	digest := strings.Repeat("0123456789abcdef", 4)
	for _, line := range []string{
		digest + "  a", digest + " *a", "SHA256 (a) = " + digest, `\` + digest + `  a\\b\nc\rd`, digest + "  ../a", digest + "  a\r",
		"# SHA512 HASH\n" + digest + digest + "  a", "MD5 (./a) = " + digest[:32], "SHA512(a)= " + digest + digest,
	} {
		f.Add([]byte(line + "\n" + digest + "  b\n"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		nested, err := parseSums(data, true)
		for _, e := range nested {
			if e.bad == "" && !filepath.IsLocal(e.name) {
				t.Fatalf("%+v was let through", e)
			}
		}
		entries, err2 := parseSums(data, false)
		if err != nil || err2 != nil {
			return
		}
		var files []FileDigest
		names := map[string]bool{}
		for _, e := range entries {
			if e.bad != "" {
				continue
			}
			if strings.ContainsAny(e.name, "/\\\x00\r\n") || e.name == ".." || e.name == "." || names[e.name] {
				t.Fatalf("%+v was let through", e)
			}
			names[e.name] = true
			if len(e.sha256) != 64 {
				if e.sha256 != "" || e.sha512 != "" && len(e.sha512) != 128 || e.sha512 == "" && e.other == "" {
					t.Fatalf("%+v was let through", e)
				}
				continue
			}
			files = append(files, FileDigest{Name: e.name, SHA256: e.sha256})
		}
		if len(files) == 0 {
			return
		}
		again, err := parseSums(formatSums(files), false)
		if err != nil || len(again) != len(files) {
			t.Fatalf("%v: %q", err, formatSums(files))
		}
		for i := range again {
			if again[i].name != files[i].Name || again[i].sha256 != files[i].SHA256 || again[i].bad != "" {
				t.Fatalf("%+v became %+v", files[i], again[i])
			}
		}
	})
}

// FuzzAgentAnswer: an answer of the agent is parsed or refused.
func FuzzAgentAnswer(f *testing.F) {
	f.Add([]byte("(7:sig-val(3:rsa(1:s3:abc)))"))
	f.Add([]byte("(7:sig-val(5:eddsa(1:r1:a)(1:s1:b)))"))
	f.Add([]byte("(((((((((((((((((((("))
	f.Add([]byte("99999999999:"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		expr, err := parseSexp(data)
		if err == nil {
			expr.value("s")
		}
	})
}
