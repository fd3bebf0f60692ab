package sandbox

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

func authorizedKey(k ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
}

func TestConsole(t *testing.T) {
	a, b := newSigner().PublicKey(), newSigner().PublicKey()
	block := func(lines ...string) string {
		return keysBegin + "\r\n" + strings.Join(lines, "\r\n") + "\r\n" + keysEnd + "\r\n"
	}
	hint := "Login hint: user linux, password s3cretS3cret (emergency console access only)\r\n"
	for _, tc := range []struct {
		name, text string
		key        ssh.PublicKey
		pass       string
	}{
		{name: "empty"},
		{name: "block", text: "boot\r\n" + block("ecdsa-sha2-nistp256 garbage", authorizedKey(a)+" root@x"), key: a},
		{name: "logger's prefix", text: "<14>Nov 22 cloud-init: " + keysBegin + "\n<14>Nov 22 cloud-init: " + authorizedKey(a) + "\n<14>Nov 22 cloud-init: " + keysEnd + "\n", key: a},
		{name: "first block counts", text: block(authorizedKey(a)) + block(authorizedKey(b)), key: a},
		{name: "block not ended", text: keysBegin + "\n" + authorizedKey(a) + "\n"},
		{name: "block begun anew", text: keysBegin + "\n" + authorizedKey(b) + "\n" + block(authorizedKey(a)), key: a},
		{name: "key outside of a block", text: authorizedKey(a) + "\n" + keysEnd + "\n"},
		{name: "empty block", text: block("# nothing") + block(authorizedKey(a)), key: a},
		{name: "overlong line", text: keysBegin + "\n" + strings.Repeat(" ", maxLine) + authorizedKey(b) + "\n" + authorizedKey(a) + "\n" + keysEnd + "\n", key: a},
		{name: "hint", text: "\x1b[2J\x1b[1;1HDebian\r\n" + hint + "login: ", pass: "s3cretS3cret"},
		{name: "first hint counts", text: hint + strings.ReplaceAll(hint, "s3cret", "0ther!"), pass: "s3cretS3cret"},
		{name: "hint not ended", text: strings.TrimSpace(hint)},
		{name: "hint's password too short", text: "Login hint: user linux, password abc\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, step := range []int{1, 7, len(tc.text) + 1} {
				c := newConsole()
				for rest := []byte(tc.text); len(rest) > 0; {
					n := min(step, len(rest))
					_, _ = c.Write(rest[:n])
					rest = rest[n:]
				}
				key, _, pass, _ := c.state()
				assert.Equal(t, tc.pass, pass)
				if tc.key == nil {
					assert.Nil(t, key)
				} else if assert.NotNil(t, key) {
					assert.Equal(t, tc.key.Marshal(), key.Marshal())
				}
			}
		})
	}
}

// A guest may print without end: memory stays bounded, the end is kept.
func TestConsoleIsBounded(t *testing.T) {
	c := newConsole()
	chunk := bytes.Repeat([]byte("x"), 100_000)
	for range 200 {
		_, _ = c.Write(chunk)
	}
	_, _ = fmt.Fprint(c, "\nthe end\n")
	log := c.log()
	assert.Less(t, len(log), maxLog+2*maxLogTail)
	assert.Contains(t, string(log), "[... console cut here ...]")
	assert.True(t, bytes.HasSuffix(log, []byte("the end\n")))
	assert.Less(t, cap(c.line), 4*maxLine)
	assert.Less(t, cap(c.tail), 8*(maxLogTail+len(chunk)))
	assert.LessOrEqual(t, len(c.last(100)), 100)
}

// What is asked without a line's end, and what a machine shows that was taken elsewhere.
func TestConsolePromptAndForget(t *testing.T) {
	c := newConsole()
	_, _ = fmt.Fprint(c, "Login hint: user linux, password s3cretS3cret (emergency)\r\n\r\necs-1f0a log")
	asked, changed := c.prompted()
	assert.False(t, asked)
	_, _ = fmt.Fprint(c, "in: ")
	<-changed
	asked, _ = c.prompted()
	assert.True(t, asked)
	c.forget()
	_, _, pass, _ := c.state()
	assert.Empty(t, pass)
	_, _ = fmt.Fprint(c, "\r\nLogin hint: user linux, password An0therAn0ther (emergency)\r\nx s3cretS3cret")
	_, _, pass, _ = c.state()
	assert.Equal(t, "An0therAn0ther", pass)
	assert.NotRegexp(t, "s3cret|An0ther", string(c.log()))
}

func TestConsoleRedacts(t *testing.T) {
	c := newConsole()
	_, _ = fmt.Fprint(c, "Login hint: user linux, password s3cretS3cret (emergency)\nlinux:s3cretS3cret\nPassword: other-one\n")
	for _, text := range []string{string(c.log()), c.last(1000)} {
		assert.NotContains(t, text, "s3cret")
		assert.NotContains(t, text, "other-one")
	}
}

func FuzzConsole(f *testing.F) {
	f.Add([]byte(keysBegin+"\nssh-ed25519 AAAA\n"+keysEnd+"\n"), 3)
	f.Add([]byte("Login hint: user linux, password abcdefgh x\r\n\x1b[0m"), 1)
	f.Fuzz(func(t *testing.T, text []byte, step int) {
		if step <= 0 {
			step = 1
		}
		c := newConsole()
		for rest := text; len(rest) > 0; {
			n := min(step, len(rest))
			_, err := c.Write(rest[:n])
			require.NoError(t, err)
			rest = rest[n:]
		}
		_, _, pass, _ := c.state()
		if pass != "" && bytes.Contains(c.log(), []byte(pass)) && !strings.Contains("[redacted]", pass) {
			t.Errorf("the log shows the password %q", pass)
		}
		for _, r := range c.last(500) {
			if r < ' ' && r != '\n' {
				t.Errorf("the tail has control character %q", r)
			}
		}
	})
}
