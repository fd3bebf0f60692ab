package hosttest_test

import (
	"context"
	"fmt"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/builder/hosttest"
)

func ExampleTest() {
	if err := hosttest.Test(context.Background(), builder.Local{}, "/var/tmp/hosttest"); err != nil {
		fmt.Println(err)
	}
}
