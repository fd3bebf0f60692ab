// Ims-server is an Image Management Service to try publishing to, without a cloud.
//
//	ims-server [-listen 127.0.0.1:8774] -objects DIR
//
// DIR has buckets as directories: what an S3 gateway with files serves. It prints a
// clouds.yaml with the cloud "try", whose endpoint is http, on loopback alone.
package main

import (
	"crypto/rand"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/imstest"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8774", "loopback `address`")
	objects := flag.String("objects", "", "`directory` that has buckets as directories")
	flag.Parse()
	host, _, err := net.SplitHostPort(*listen)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() || *objects == "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "usage: ims-server [-listen 127.0.0.1:PORT] -objects DIR")
		os.Exit(2)
	}
	password := rand.Text()
	server := &http.Server{
		Addr: *listen, ReadHeaderTimeout: time.Minute,
		Handler: &imstest.Server{Users: map[string]string{"try": password}, Objects: os.DirFS(*objects), Polls: 3},
	}
	fmt.Printf(`clouds:
  try:
    region_name: eu-de
    auth:
      auth_url: http://%s%s/v3
      username: try
      password: %s
      project_name: try
      user_domain_name: Default
      project_domain_name: Default
`, *listen, imstest.Identity, password)
	log.Fatal(server.ListenAndServe())
}
