package sshhost_test

import (
	"context"
	"log"
	"os"

	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/builder/sshhost"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

// A machine that definitions call by name: builder: {host: big, dib: {…}}.
func Example() {
	secret, err := os.ReadFile("id_ed25519")
	if err != nil {
		log.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(secret)
	if err != nil {
		log.Fatal(err)
	}
	line, err := os.ReadFile("big.hostkey")
	if err != nil {
		log.Fatal(err)
	}
	hostKey, _, _, _, err := ssh.ParseAuthorizedKey(line)
	if err != nil {
		log.Fatal(err)
	}
	big, err := sshhost.New(sshhost.Config{Address: "192.0.2.10:22", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKey: hostKey})
	if err != nil {
		log.Fatal(err)
	}
	defer big.Close()
	factory := &imagefactory.Factory{Dir: "dist", Hosts: map[string]builder.Host{"big": big}}
	_, _ = factory.Run(context.Background(), nil)
}
