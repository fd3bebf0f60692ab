package signing

import (
	"bytes"
	"context"
	"crypto"
	stdecdsa "crypto/ecdsa"
	stded25519 "crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os/exec"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/ecdsa"
	"github.com/ProtonMail/go-crypto/openpgp/ed25519"
	"github.com/ProtonMail/go-crypto/openpgp/eddsa"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// AgentConfig says how to reach gpg-agent.
type AgentConfig struct {
	// Socket of the agent; if empty, what `gpgconf --list-dirs agent-socket`
	// prints, which heeds GNUPGHOME.
	Socket string

	// TTY on which the agent may ask for a passphrase; if empty, the one it
	// was started with.
	TTY string
}

// NewAgentSigner returns a signer whose secret key is in a running gpg-agent and
// stays there. The agent holds no OpenPGP packets, so key is the public key. The
// newest part of it (a signing subkey, or else the primary key) that may sign
// now and that the agent has is used. Where that needs a passphrase, the agent
// asks for it by its own means.
//
// A connection is made for each signature, so the signer needs no closing.
// c.External must be nil. Unless c.Concurrent is set the agent is asked for one
// signature at a time, so that it asks for a passphrase once.
func NewAgentSigner(ctx context.Context, key *Key, agent AgentConfig, c SignerConfig) (*Signer, error) {
	s, err := newAgentSigner(ctx, key, agent, c)
	if err != nil {
		return nil, fmt.Errorf("cannot sign with key %s in gpg-agent: %w", key.Fingerprint(), err)
	}
	return s, nil
}

func newAgentSigner(ctx context.Context, key *Key, agent AgentConfig, c SignerConfig) (*Signer, error) {
	if err := key.Err(); err != nil {
		return nil, err
	}
	if c.External != nil {
		return nil, errors.New("SignerConfig.External is set")
	}
	if agent.Socket == "" {
		out, err := exec.CommandContext(ctx, "gpgconf", "--list-dirs", "agent-socket").Output()
		if err != nil {
			return nil, fmt.Errorf("cannot ask gpgconf for the socket: %w", err)
		}
		agent.Socket = strings.TrimSpace(string(out))
	}
	grips, err := agent.grips(ctx)
	if err != nil {
		return nil, err
	}
	why := errors.New("the agent does not have it")
	for i := key.countParts() - 1; i >= 0; i-- {
		pub := key.publicKey(i)
		grip, ok := grips[publicValue(pub)]
		if !ok {
			continue
		}
		public, err := standardKey(pub)
		if err != nil {
			return nil, err
		}
		c.External = &agentKey{agent: agent, grip: grip, public: public}
		s, err := NewSigner(key, c)
		if err == nil {
			return s, nil
		}
		why = err
	}
	return nil, why
}

// publicValue is the part of a public key that tells it from all others.
func publicValue(pub *packet.PublicKey) string {
	switch key := pub.PublicKey.(type) {
	case *rsa.PublicKey:
		return string(key.N.Bytes())
	case *ecdsa.PublicKey:
		return string(key.MarshalPoint())
	case *eddsa.PublicKey:
		return string(key.MarshalPoint())
	case *ed25519.PublicKey:
		return "\x40" + string(key.Point)
	}
	return string(pub.Fingerprint) // no agent has it
}

// standardKey is the key in the form of the standard library.
func standardKey(pub *packet.PublicKey) (crypto.PublicKey, error) {
	switch key := pub.PublicKey.(type) {
	case *rsa.PublicKey:
		return key, nil
	case *ecdsa.PublicKey:
		curves := map[packet.Curve]elliptic.Curve{
			packet.CurveNistP256: elliptic.P256(), packet.CurveNistP384: elliptic.P384(), packet.CurveNistP521: elliptic.P521(),
		}
		if curve := curves[curveOf(pub)]; curve != nil {
			return stdecdsa.ParseUncompressedPublicKey(curve, key.MarshalPoint())
		}
	case *eddsa.PublicKey:
		if curveOf(pub) == packet.Curve25519 {
			return stded25519.PublicKey(key.X), nil
		}
	case *ed25519.PublicKey:
		return stded25519.PublicKey(key.Point), nil
	}
	return nil, errors.New("keys of its algorithm or curve cannot be used from elsewhere")
}

// grips asks for all keys of the agent: key grips by public key.
func (a AgentConfig) grips(ctx context.Context) (map[string]string, error) {
	conn, err := dialAssuan(ctx, a.Socket)
	if err != nil {
		return nil, err
	}
	defer conn.close()
	list, err := conn.command("KEYINFO --list")
	if err != nil {
		return nil, fmt.Errorf("cannot list the keys: %w", err)
	}
	grips := map[string]string{}
	for _, status := range list.status {
		fields := strings.Fields(status)
		if len(fields) < 2 || fields[0] != "KEYINFO" || !isGrip(fields[1]) {
			continue
		}
		answer, err := conn.command("READKEY " + fields[1])
		if err != nil {
			continue // a key whose file is damaged is not the one wanted
		}
		expr, err := parseSexp(answer.data)
		if err != nil {
			return nil, err
		}
		for _, name := range []string{"n", "q"} {
			if value := expr.value(name); value != nil {
				grips[string(bytes.TrimLeft(value, "\x00"))] = fields[1]
			}
		}
	}
	return grips, nil
}

func isGrip(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789ABCDEF") == ""
}

// agentKey is a crypto.Signer.
type agentKey struct {
	agent  AgentConfig
	grip   string
	public crypto.PublicKey
}

func (k *agentKey) Public() crypto.PublicKey { return k.public }

// Sign is for whoever has no context; a Signer uses SignContext.
func (k *agentKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignContext(context.Background(), rand, digest, opts)
}

// SignContext makes agentKey a ContextSigner.
func (k *agentKey) SignContext(ctx context.Context, _ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	conn, err := dialAssuan(ctx, k.agent.Socket)
	if err != nil {
		return nil, err
	}
	defer conn.close()
	hash := opts.HashFunc()
	if hash == 0 { // Ed25519 signs the digest as a message, whatever it is called
		hash = map[int]crypto.Hash{32: crypto.SHA256, 48: crypto.SHA384, 64: crypto.SHA512}[len(digest)]
	}
	names := map[crypto.Hash]string{crypto.SHA256: "sha256", crypto.SHA384: "sha384", crypto.SHA512: "sha512"}
	if names[hash] == "" {
		return nil, fmt.Errorf("hash %s cannot be used with gpg-agent", hash)
	}
	commands := []string{
		"SIGKEY " + k.grip,
		fmt.Sprintf("SETHASH --hash=%s %X", names[hash], digest),
		"PKSIGN",
	}
	if k.agent.TTY != "" {
		commands = append([]string{"OPTION ttyname=" + k.agent.TTY}, commands...)
	}
	var answer assuanAnswer
	for _, command := range commands {
		if answer, err = conn.command(command); err != nil {
			return nil, fmt.Errorf("gpg-agent cannot sign: %w", err)
		}
	}
	return k.decode(answer.data)
}

// decode turns a signature S-expression into what crypto.Signer returns.
func (k *agentKey) decode(data []byte) ([]byte, error) {
	expr, err := parseSexp(data)
	if err != nil {
		return nil, err
	}
	r, s := expr.value("r"), expr.value("s")
	switch k.public.(type) {
	case *rsa.PublicKey:
		if s != nil {
			return bytes.TrimLeft(s, "\x00"), nil
		}
	case *stdecdsa.PublicKey:
		if r != nil && s != nil {
			return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)})
		}
	case stded25519.PublicKey:
		if r != nil && s != nil {
			both := make([]byte, 64)
			new(big.Int).SetBytes(lastBytes(r, 32)).FillBytes(both[:32])
			new(big.Int).SetBytes(lastBytes(s, 32)).FillBytes(both[32:])
			return both, nil
		}
	}
	return nil, errors.New("gpg-agent answered with another kind of signature")
}

func lastBytes(b []byte, n int) []byte { return b[max(0, len(b)-n):] }
