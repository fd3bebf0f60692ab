package dib

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeAppliance writes what builds the image without this package: a script, and for it
// the tool's environment and elements with $work, $debian and $debian_security in place of
// what its user says.
func (r *run) writeAppliance() error {
	script, err := embedded.ReadFile("create_appliance.sh")
	if err != nil {
		return err
	}
	shell := *r
	shell.spec.WorkDir = "$work"
	shell.spec.Mirrors = map[string]string{"debian": "$debian", "debian-security": "$debian_security"}
	var text strings.Builder
	text.WriteString("environment=(\n")
	for _, variable := range shell.env() {
		if name, _, _ := strings.Cut(variable, "="); name == "PATH" || name == "HOME" {
			continue // the script's own
		}
		// What the spec and a Config may hold has no quotes, backslashes or dollars.
		fmt.Fprintf(&text, "\"%s\"\n", variable)
	}
	fmt.Fprintf(&text, ")\nelements=(%s)\n", strings.Join(append([]string{hookElement}, r.Elements...), " "))
	if err := os.WriteFile(filepath.Join(r.config, "parameters"), []byte(text.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.config, "create_appliance.sh"), script, 0o755)
}
