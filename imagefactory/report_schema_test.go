package imagefactory

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

const reportSchemaFile = "report.schema.json"

// reportEnums are the values of the texts that have a few.
var reportEnums = map[reflect.Type][]string{
	reflect.TypeFor[Outcome]():            {string(Published), string(Unchanged), string(Failed), string(Candidate), string(Waiting)},
	reflect.TypeFor[Stage]():              {"", string(StageBuild), string(StageInspect), string(StageTest), string(StageSeal), string(StagePublish)},
	reflect.TypeFor[DueReason]():          {string(DueFirst), string(DueNight), string(DueMonth), string(DueSecurity), string(DueForced), string(NotDue)},
	reflect.TypeFor[testsuite.Severity](): {"", "low", "medium", "high", "critical"},
}

// reportSchema is the JSON schema of what Report.WriteJSON writes.
func reportSchema(t *testing.T) []byte {
	texts := comments(t)
	document := jsonSchema(reflect.TypeFor[Report](), texts)
	document["$schema"], document["title"] = "https://json-schema.org/draft/2020-12/schema", "Report of an image factory's night"
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	require.NoError(t, encoder.Encode(document))
	return out.Bytes()
}

func jsonSchema(typ reflect.Type, texts map[string]string) object {
	if values := reportEnums[typ]; values != nil {
		return object{"enum": values}
	}
	switch {
	case typ == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case typ.Kind() == reflect.Pointer:
		return jsonSchema(typ.Elem(), texts)
	case typ.Kind() == reflect.String:
		return object{"type": "string"}
	case typ.Kind() == reflect.Bool:
		return object{"type": "boolean"}
	case typ.Kind() == reflect.Int || typ.Kind() == reflect.Int64:
		return object{"type": "integer"}
	case typ.Kind() == reflect.Slice:
		return object{"type": "array", "items": jsonSchema(typ.Elem(), texts)}
	case typ.Kind() == reflect.Map:
		o := object{"type": "object", "additionalProperties": jsonSchema(typ.Elem(), texts)}
		if values := reportEnums[typ.Key()]; values != nil {
			o["propertyNames"] = object{"enum": values}
		}
		return o
	}
	properties, required := object{}, []string{}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		s := jsonSchema(f.Type, texts)
		if text := texts[typ.Name()+"."+f.Name]; text != "" {
			s["description"] = text
		}
		properties[name] = s
		if options == "" {
			required = append(required, name)
		}
	}
	return object{"type": "object", "additionalProperties": false, "properties": properties, "required": required}
}

func TestReportSchema(t *testing.T) {
	want := reportSchema(t)
	if *update {
		require.NoError(t, os.WriteFile(reportSchemaFile, want, 0o644))
	}
	have, err := os.ReadFile(reportSchemaFile)
	require.NoError(t, err)
	require.Equal(t, string(want), string(have), "go test ./imagefactory -run TestReportSchema -update")

	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(have))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	require.NoError(t, compiler.AddResource(reportSchemaFile, document))
	schema, err := compiler.Compile(reportSchemaFile)
	require.NoError(t, err)
	validate := func(r *Report) error {
		var out bytes.Buffer
		require.NoError(t, r.WriteJSON(&out))
		v, err := jsonschema.UnmarshalJSON(&out)
		require.NoError(t, err)
		return schema.Validate(v)
	}
	require.NoError(t, validate(eventful()))
	f, d := embedded(t)
	d.Gate.Approval = true
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.NoError(t, validate(report))
	bad := eventful()
	bad.Images[0].Result = "lost"
	require.Error(t, validate(bad))
	require.Error(t, schema.Validate(map[string]any{"started": "now", "finished": "2026-01-01T03:00:00Z", "images": []any{}}))
}

// eventful has one of each.
func eventful() *Report {
	at := time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	return &Report{Started: at, Finished: at.Add(90 * time.Minute), SiteError: "cannot write the website: it is full", Images: []ImageReport{
		{
			Name: "Standard_A_1", Build: "20260101-030000", Result: Published, DurationMS: map[Stage]int64{StageBuild: 61500, StageTest: 1000},
			Checks: testsuite.Summary{Pass: 60, Skipped: 2}, Release: "Standard_A_1/20260101-030000", Artifacts: []string{"a"},
			Targets: []TargetReport{{Name: "directory", Build: "20260101-030000"}}, Notes: []string{"known"},
			Due:     &Due{Image: "Standard_A_1", Due: true, Why: DueSecurity, Text: "a fix", Latest: "20251201-030000", Built: at, Next: at, Updates: []Update{{ID: "CVE-1", Package: "a", Version: "1", FixedIn: "2", Severity: "high"}}},
			Retired: []string{"directory/20231201-030000"},
		},
		{
			Name: "Standard_B_1", Result: Failed, Stage: StageTest, Error: "two of them:\na <b> \x1b[31m\nc", Err: errors.New("x"), DurationMS: map[Stage]int64{}, Artifacts: []string{},
			Alarms: []string{"latest is old", "cannot retire releases: no"}, Findings: []Finding{{ID: "inspection.leaks", Severity: "low", Text: "3", Blocks: true, Reason: "r"}},
		},
		{Name: "Standard_C_1", Build: "20260101-030000", Result: Candidate, Held: "it waits for approval", DurationMS: map[Stage]int64{}, Artifacts: []string{}},
	}}
}

func TestReportJUnit(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, eventful().WriteJUnit(&out))
	require.Equal(t, `<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="imagefactory" tests="5" failures="3" errors="0" timestamp="2026-01-01T03:00:00" time="5400.000">
    <testcase classname="imagefactory" name="Standard_A_1" time="62.500">
      <system-out>published, build 20260101-030000, latest release Standard_A_1/20260101-030000</system-out>
    </testcase>
    <testcase classname="imagefactory" name="Standard_B_1" time="0.000">
      <failure type="test" message="two of them:">two of them:&#xA;a &lt;b&gt; \x1b[31m&#xA;c</failure>
      <system-out>failed, build none, latest release none</system-out>
    </testcase>
    <testcase classname="imagefactory.alarms" name="Standard_B_1" time="0.000">
      <failure type="alarm" message="latest is old">latest is old&#xA;cannot retire releases: no</failure>
    </testcase>
    <testcase classname="imagefactory" name="Standard_C_1" time="0.000">
      <system-out>candidate, build 20260101-030000, latest release none&#xA;held: it waits for approval</system-out>
    </testcase>
    <testcase classname="imagefactory" name="website" time="0.000">
      <failure type="website" message="cannot write the website: it is full">cannot write the website: it is full</failure>
    </testcase>
  </testsuite>
</testsuites>
`, out.String())
	require.NoError(t, xml.Unmarshal(out.Bytes(), new(any)))
}
