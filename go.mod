module github.com/opentelekomcloud/go-imagefactory

go 1.26.0

require (
	github.com/diskfs/go-diskfs v1.9.4
	github.com/stretchr/testify v1.12.1
	golang.org/x/crypto v0.58.0
)

require (
	github.com/djherbis/times v1.6.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
