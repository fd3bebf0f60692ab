package ledger_test

import (
	"bytes"
	"fmt"
	"os"

	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
)

// What changed between the files of two releases.
func ExampleCompare() {
	passwd := ledger.File{Path: "/usr/bin/passwd", Type: ledger.Regular, Mode: 0o4755, SHA256: fmt.Sprintf("%064x", 1)}
	var was, is bytes.Buffer
	old := ledger.Listing{Files: []ledger.File{passwd}}
	passwd.SHA256 = fmt.Sprintf("%064x", 2)
	today := ledger.Listing{Files: []ledger.File{passwd, {Path: "/usr/local/bin/ss", Type: ledger.Regular, Mode: 0o4755, SHA256: fmt.Sprintf("%064x", 3)}}}
	for _, l := range []struct {
		listing ledger.Listing
		to      *bytes.Buffer
	}{{old, &was}, {today, &is}} {
		if err := l.listing.WriteText(l.to); err != nil {
			fmt.Println(err)
			return
		}
	}
	if err := ledger.Compare(os.Stdout, &was, &is); err != nil {
		fmt.Println(err)
	}
	// Output:
	// */usr/bin/passwd
	// +/usr/local/bin/ss
}
