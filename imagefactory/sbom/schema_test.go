package sbom_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// CycloneDX's own schema, which comes with its library, accepts what is written,
// and does not accept everything.
func TestSchemaOfCycloneDX(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	for url, file := range map[string]string{
		"bom-1.6.schema.json": "bom-1.6.schema.json", "spdx.schema.json": "spdx.schema.json", "jsf-0.82.schema.json": "jsf-0.82.schemax.json",
	} {
		data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "schema", file))
		require.NoError(t, err)
		schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		require.NoError(t, err)
		require.NoError(t, compiler.AddResource("http://cyclonedx.org/schema/"+url, schema))
	}
	schema, err := compiler.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	require.NoError(t, err)
	good := written(t, example())
	for _, c := range []struct {
		name, old, new string
		good           bool
	}{
		{"as it is", "", "", true},
		{"an unknown key", `"bomFormat"`, `"bomformat"`, false},
		{"an unknown type", `"library"`, `"package"`, false},
		{"an unknown digest", `"SHA-512"`, `"SHA512"`, false},
	} {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(bytes.ReplaceAll(good, []byte(c.old), []byte(c.new))))
		require.NoError(t, err)
		err = schema.Validate(value)
		require.Equal(t, c.good, err == nil, "%s: %v", c.name, err)
	}
}
