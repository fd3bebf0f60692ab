package directory_test

import (
	"testing"

	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

func TestTarget(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	if err := publishtest.TestTarget(t.Context(), target, "Publishtest"); err != nil {
		t.Fatal(err)
	}
}
