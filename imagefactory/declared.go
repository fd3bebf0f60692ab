package imagefactory

import (
	"fmt"
	"log/slog"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// declaredText are the files that a definition brings beside packages, in
// the form of ledger.ParseRules, or nothing where its builder does not tell.
func declaredText(log *slog.Logger, driver string, b builder.Builder, spec builder.Spec) (text string, err error) {
	d, ok := b.(builder.Declarer)
	if !ok {
		return "", nil
	}
	err = contain(log, "builder "+driver, "DeclaredFiles", func() (err error) {
		text, err = d.DeclaredFiles(spec)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("cannot tell the files that the definition brings: %w", err)
	}
	return text, nil
}
