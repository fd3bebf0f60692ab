package imagefactory_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// Who plans sends the tasks of a night through a queue; a worker that has the
// definitions does one at a time, and tells by the error what to do with it.
func ExampleFactory_Do() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "upstream.qcow2")
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "example"})
	if err := errors.Join(err, sandboxtest.WriteImage(image, 4<<30)); err != nil {
		fmt.Println(err)
		return
	}
	factory := imagefactory.Factory{
		Dir: filepath.Join(dir, "factory"), Key: key, Sandbox: sandboxtest.Sandbox{},
		Builders: []imagefactory.BuilderDriver{upstreamDriver{}},
		Targets:  []imagefactory.TargetDriver{shelfDriver{new(shelf)}},
		Definitions: []imagefactory.Definition{{
			Name: "Standard_Debian_12", DiskBytes: 4 * imagefactory.GiB,
			OS:          imagefactory.OS{Distribution: "debian", Version: "12", Codename: "bookworm"},
			Builder:     imagefactory.Component{Driver: "upstream", Config: upstream{Image: image}},
			Mirrors:     map[string]string{"debian": "http://mirror.example/debian"},
			UVPMonitor:  imagefactory.UVPMonitor{State: testsuite.UVPOptional, Reason: "not in Debian's archive"},
			TrustedKeys: []imagefactory.TrustedKey{{File: image}},
			Publish:     []imagefactory.Component{{Driver: "shelf"}},
		}},
	}
	tasks, err := factory.Tasks(factory.Definitions)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, i := range []int{1, 0, 0, 1, 2, 3, 4} { // as a queue may bring them
		message, _ := json.Marshal(tasks[i])
		var task imagefactory.Task
		if err := json.Unmarshal(message, &task); err != nil {
			fmt.Println(err)
			return
		}
		report, err := factory.Do(context.Background(), task)
		switch {
		case errors.Is(err, imagefactory.ErrNothingToDo):
			fmt.Println(task.Stage, "is done already")
		case errors.Is(err, imagefactory.ErrWaits), errors.Is(err, imagefactory.ErrBusy):
			fmt.Println(task.Stage, "comes later, after", task.After)
		case err != nil:
			fmt.Println(task.Stage, err, "again:", imagefactory.IsTransient(err))
		default:
			fmt.Println(task.Stage, report.Result)
		}
	}
	// Output:
	// inspect comes later, after build
	// build waiting
	// build is done already
	// inspect waiting
	// test waiting
	// seal waiting
	// publish published
}
