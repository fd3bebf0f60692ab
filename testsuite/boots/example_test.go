package boots_test

import (
	"context"
	"errors"
	"log"
	"os"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/boots"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// Two machines of one image, held beside each other.
func Example() {
	if err := twoMachines(context.Background(), "image.qcow2"); err != nil {
		log.Fatal(err)
	}
}

func twoMachines(ctx context.Context, path string) (err error) {
	image := sandbox.Image{Path: path, User: "linux"}
	others := boots.Start(ctx, boots.Config{Sandbox: sandbox.QEMU{}, Image: image})
	defer func() { err = errors.Join(err, others.Close()) }()
	image.Variant = others.First
	first, err := sandbox.QEMU{}.Boot(ctx, image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, first.Close()) }()

	suite := &testsuite.Suite{Profile: testsuite.Profile{Name: "boots", Checks: boots.Checks()}, Facts: []string{"identity"}}
	facts, err := suite.Gather(ctx, first.Target)
	if err != nil {
		return err
	}
	fact, err := others.Fact(ctx, first, facts)
	if err != nil {
		return err
	}
	facts.Facts[boots.FactName] = fact
	report, err := suite.Judge(facts)
	if err != nil {
		return err
	}
	return report.WriteText(os.Stdout)
}
