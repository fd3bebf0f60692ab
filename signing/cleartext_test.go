package signing_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

func TestCleartext(t *testing.T) {
	key, other := newKey(t, signing.KeyConfig{}), newKey(t, signing.KeyConfig{V6: true})
	sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(t, key), newSigner(t, other)}}
	for name, text := range map[string]string{
		"empty":            "",
		"one line":         "one\n",
		"no line end":      "one",
		"dashes":           "-----BEGIN PGP SIGNATURE-----\n- a list\n--\n",
		"space":            "one  \n\ttwo\t\n\n\nthree\n\n",
		"CR LF":            "one\r\ntwo\r\n",
		"From":             "From here\n",
		"not text":         "\x01\xff\xfe\n\x01",
		"only line ends":   "\n\n\n",
		"looks signed":     "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nx\n",
		"long line":        strings.Repeat("x", 19_980) + "\n",
		"checksum escapes": `\5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03  a\nb` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			signed, err := sealer.Cleartext(t.Context(), strings.NewReader(text))
			require.NoError(t, err)
			got, result, err := verifier(pinned(t, key, other)).Cleartext(t.Context(), "text", bytes.NewReader(signed))
			require.NoError(t, err)
			require.True(t, result.OK())
			require.Len(t, result.Files[0].Signatures, 2)
			for _, s := range result.Files[0].Signatures {
				require.Empty(t, s.Reason)
			}
			require.Equal(t, trimmed(text), trimmed(string(got)))

			path := filepath.Join(t.TempDir(), "text")
			require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
			_, err = sealer.ClearSignFile(t.Context(), path)
			require.NoError(t, err)
			_, err = verifier(pinned(t, key)).File(t.Context(), path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, []byte(text+"more"), 0o644))
			_, err = verifier(pinned(t, key)).File(t.Context(), path)
			require.ErrorIs(t, err, signing.BadSignature)
		})
	}
}

// trimmed is what a cleartext signature keeps of a text.
func trimmed(text string) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t\r")
	}
	return strings.Join(lines, "\n")
}

// TestCleartextAsItIsWritten: what editors and key rollover make of it.
func TestCleartextAsItIsWritten(t *testing.T) {
	key, other := newKey(t, signing.KeyConfig{}), newKey(t, signing.KeyConfig{})
	signed, err := (&signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}).Cleartext(t.Context(), strings.NewReader("one\ntwo\n"))
	require.NoError(t, err)
	good := string(signed)
	again, err := (&signing.Sealer{Signers: []*signing.Signer{newSigner(t, other)}}).Cleartext(t.Context(), strings.NewReader("one\ntwo\n"))
	require.NoError(t, err)
	second := string(again[bytes.Index(again, []byte("-----BEGIN PGP SIGNATURE")):])
	for name, text := range map[string]string{
		"blank lines":      "\n\n" + good + "\n \n",
		"no last line end": strings.TrimSuffix(good, "\n"),
		"CR LF":            strings.ReplaceAll(good, "\n", "\r\n"),
		"two blocks":       good + second,
		"blank between":    good + "\n" + second + "\n",
		"byte order mark":  "\xef\xbb\xbf" + good,
	} {
		got, _, err := verifier(pinned(t, key)).Cleartext(t.Context(), "text", strings.NewReader(text))
		require.NoError(t, err, name)
		require.Equal(t, "one\ntwo\n", string(got))
		path := writeFile(t, "text", text)
		_, err = verifier(pinned(t, key)).File(t.Context(), path)
		require.NoError(t, err, name)
		if strings.HasPrefix(name, "two") {
			v := verifier(pinned(t, key, other))
			v.Required = 2
			_, err = v.File(t.Context(), path)
			require.NoError(t, err)
		}
	}
}

func TestCleartextRefuses(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}
	signed, err := sealer.Cleartext(t.Context(), strings.NewReader("one\ntwo\n"))
	require.NoError(t, err)
	good := string(signed)
	for name, c := range map[string]struct {
		text string
		want signing.Reason
	}{
		"other text":     {strings.Replace(good, "two", "twa", 1), signing.BadSignature},
		"before":         {"run this\n" + good, signing.Malformed},
		"after":          {good + "run this\n", signing.Malformed},
		"other header":   {strings.Replace(good, "Hash:", "Comment:", 1), signing.Malformed},
		"no signature":   {good[:strings.Index(good, "-----BEGIN PGP SIGNATURE")], signing.Malformed},
		"cut":            {good[:len(good)-40], signing.Malformed},
		"not signed":     {"one\ntwo\n", signing.Malformed},
		"nothing":        {"", signing.Malformed},
		"inside":         {strings.Replace(good, "-----BEGIN PGP SIGNATURE", "run this\n-----BEGIN PGP SIGNATURE", 1), signing.BadSignature},
		"in the armor":   {strings.Replace(good, "-----END PGP SIGNATURE", "run this\n-----END PGP SIGNATURE", 1), signing.Malformed},
		"two texts":      {good + "\n" + good, signing.Malformed},
		"two signatures": {good + good, signing.Malformed},
	} {
		_, result, err := verifier(pinned(t, key)).Cleartext(t.Context(), "text", strings.NewReader(c.text))
		require.ErrorIs(t, err, c.want, name)
		require.False(t, result.OK(), name)
	}
}
