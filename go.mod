module github.com/opentelekomcloud/go-imagefactory

go 1.25.0

require (
	github.com/klauspost/compress v1.20.3
	github.com/stretchr/testify v1.12.1
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect
