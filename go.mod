module github.com/opentelekomcloud/go-imagefactory

go 1.25.0
