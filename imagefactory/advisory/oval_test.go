package advisory_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
)

// oval has the shape of SUSE's and Red Hat's exports.
const oval = `<?xml version="1.0" encoding="UTF-8"?>
<oval_definitions xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5">
 <generator><product_name>x</product_name></generator>
 <definitions>
  <definition id="oval:org.example:def:1" class="patch"><metadata><title>x</title>
    <affected family="unix"><platform>SUSE Linux Enterprise Server 15 SP4</platform></affected>
    <reference ref_id="CVE-2026-0021" ref_url="https://example.com" source="CVE"/>
    <advisory><severity>Important</severity><cve impact="moderate">CVE-2026-0022</cve></advisory></metadata>
   <criteria operator="AND"><criterion test_ref="t:1" comment="SLES 15"/>
    <criteria operator="OR"><criterion test_ref="t:2"/><criterion test_ref="t:3"/></criteria></criteria></definition>
  <definition id="oval:org.example:def:2" class="inventory"><metadata><reference ref_id="CVE-2026-0023"/></metadata><criteria><criterion test_ref="t:1"/></criteria></definition>
  <definition id="oval:org.example:def:3" class="vulnerability"><metadata>
    <affected family="unix"><platform>SUSE Linux Enterprise Server 15</platform></affected><reference ref_id="CVE-2026-0024"/></metadata>
   <criteria><criterion test_ref="t:2"/><criterion test_ref="uname:1"/></criteria></definition>
 </definitions>
 <tests>
  <rpminfo_test id="t:1" check="at least one"><object object_ref="o:1"/><state state_ref="s:1"/></rpminfo_test>
  <rpminfo_test id="t:2" check="at least one"><object object_ref="o:2"/><state state_ref="s:2"/></rpminfo_test>
  <rpminfo_test id="t:3" check="at least one"><object object_ref="o:3"/><state state_ref="s:2"/></rpminfo_test>
 </tests>
 <objects><rpminfo_object id="o:1"><name>sles-release</name></rpminfo_object>
  <rpminfo_object id="o:2"><name>openssl</name></rpminfo_object><rpminfo_object id="o:3"><name>libopenssl1_1</name></rpminfo_object></objects>
 <states><rpminfo_state id="s:1"><version operation="equals">15.4</version></rpminfo_state>
  <rpminfo_state id="s:2"><arch operation="pattern match">(x86_64|noarch)</arch><evr datatype="evr_string" operation="less than">0:1.1.1l-150400.7.60.2</evr></rpminfo_state></states>
</oval_definitions>`

func TestOVAL(t *testing.T) {
	db, err := load(t, map[string]string{"suse.xml": oval})
	require.NoError(t, err)
	require.Equal(t, []string{"CVE-2026-0021", "CVE-2026-0022", "CVE-2026-0024"}, db.IDs())
	sles := func(packages ...string) *advisory.Installed {
		i := &advisory.Installed{Distribution: "sles", Release: "15-sp4", Packages: []advisory.Package{{Name: "sles-release", Version: "15.4-150400.55.1", Arch: "x86_64"}}}
		for _, p := range packages {
			f := strings.Fields(p)
			i.Packages = append(i.Packages, advisory.Package{Name: f[0], Version: f[1], Arch: f[2]})
		}
		return i
	}
	const old, fixed = "1.1.1l-150400.7.9.1", "1.1.1l-150400.7.60.2"
	other := sles("openssl " + old + " x86_64")
	other.Packages[0].Version = "15.5-1"
	for _, c := range []struct {
		id        string
		installed *advisory.Installed
		want      advisory.Status
		pkg       string
	}{
		{"CVE-2026-0021", sles("openssl " + old + " x86_64"), advisory.Affected, "openssl"},
		{"CVE-2026-0022", sles("openssl "+fixed+" x86_64", "libopenssl1_1 "+old+" x86_64"), advisory.Affected, "libopenssl1_1"},
		{"CVE-2026-0021", sles("openssl " + fixed + " x86_64"), advisory.Fixed, "openssl"},
		{"CVE-2026-0021", sles("openssl 1:1.0-1 x86_64"), advisory.Fixed, "openssl"},
		{"CVE-2026-0021", sles("openssl " + old + " s390x"), advisory.NotPresent, ""},
		{"CVE-2026-0021", sles("zlib 1-1 x86_64"), advisory.NotPresent, ""},
		{"CVE-2026-0021", other, advisory.NotPresent, ""},
		{"CVE-2026-0021", debian(source("openssl", "1")), advisory.Unknown, ""},
		{"CVE-2026-0024", sles("openssl " + old + " x86_64"), advisory.Affected, "openssl"}, // whatever kernel runs
		{"CVE-2026-0024", sles(), advisory.NotPresent, ""},
	} {
		got := db.Judge(c.id, c.installed)
		require.Equal(t, c.want, got.Status, "%s %v: %s", c.id, c.installed, got)
		require.Equal(t, c.pkg, got.Package, "%s %v", c.id, c.installed)
	}
	open := db.Open(sles("openssl " + old + " x86_64"))
	require.Len(t, open, 3)
	require.Equal(t, fixed, open[0].FixedIn)
	require.Equal(t, "Important", open[0].Severity)

	for name, text := range map[string]string{
		"cut off": oval[:len(oval)/2], "cut off at its end": oval[:len(oval)-4], "other": "<rss></rss>", "html": "<!DOCTYPE html><html>",
		"depth": strings.Replace(oval, `<criterion test_ref="uname:1"/>`, strings.Repeat("<criteria>", 100)+strings.Repeat("</criteria>", 100), 1),
	} {
		_, err := load(t, map[string]string{"x": text})
		require.Error(t, err, name)
	}
}
