package queue_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/queue"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// broken is a builder that cannot build.
type broken struct{}

func (broken) Name() string { return "broken" }

func (broken) New(decode func(any) error) (builder.Builder, error) {
	return broken{}, decode(&struct{}{})
}

func (broken) Build(context.Context, builder.Host, builder.Spec) (*builder.Result, error) {
	return nil, io.ErrNoProgress
}

// A night is planned by one process and done by another; both have the definitions, the
// directory and the database.
func Example() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "example"})
	if err != nil {
		fmt.Println(err)
		return
	}
	factory := &imagefactory.Factory{
		Dir: filepath.Join(dir, "dist"), Key: key, AnyClass: true,
		Builders: []imagefactory.BuilderDriver{broken{}},
		Targets:  []imagefactory.TargetDriver{directory.Driver{Dir: filepath.Join(dir, "dist")}},
		Definitions: []imagefactory.Definition{{
			Name: "my_Image_1", DiskBytes: 4 * imagefactory.GiB, OS: imagefactory.OS{Distribution: "own", Version: "1"},
			Builder: imagefactory.Component{Driver: "broken"},
		}},
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	q, err := queue.Open(ctx, queue.Config{URL: "sqlite:" + filepath.Join(dir, "queue.sqlite")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer q.Close()
	worker := make(chan error)
	go func() { worker <- q.Work(ctx, queue.Worker{Factory: factory}) }()

	tasks, err := factory.Tasks(factory.Definitions)
	if err := errors.Join(err, q.Add(ctx, tasks, queue.AddOptions{})); err != nil {
		fmt.Println(err)
		return
	}
	report, err := q.Wait(ctx, tasks, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, image := range report.Images {
		fmt.Println(image.Name, image.Result, image.Stage, image.Error)
	}
	stop()
	fmt.Println(<-worker)
	// Output:
	// my_Image_1 failed build multiple Read calls return no data or error
	// <nil>
}
