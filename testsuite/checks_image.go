package testsuite

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const refCloudInit = "OTC image factory introduction: cloud-init"

func cloudInitChecks() []Check {
	return []Check{
		{
			ID: "cloud-init.finished", Severity: High, Needs: []string{"cloud-init", "cloud-init-stages"}, References: []string{refCloudInit},
			Title: "cloud-init ran to its end without errors",
			Why:   "What it left undone, the customer's machine lacks.",
			Judge: judgeCloudInit,
		},
		{
			ID: "cloud-init.datasources", Severity: High, Needs: []string{"cloud-config"}, References: []string{refCloudInit},
			Title: "cloud-init looks for NoCloud, ConfigDrive and OpenStack",
			Why:   "ECS machines have the metadata server, bare metal the config drive, the sandbox NoCloud.",
			Judge: judgeDatasources,
		},
		{
			ID: "cloud-init.hostname", Severity: Medium, Needs: []string{"hostname"}, References: []string{refCloudInit},
			Title: "the machine has the name that it was given, and can resolve it",
			Why:   "sudo and services stall on a name that does not resolve.",
			Judge: func(f Facts, p Params) Verdict {
				if p.Hostname == "" {
					return skipped("the machine was given no host name")
				}
				expected := fmt.Sprintf("kernel %s, file %s, resolves", p.Hostname, p.Hostname)
				kernel, file, address := f.value("hostname", "kernel"), f.value("hostname", "file"), f.value("hostname", "resolves")
				found := fmt.Sprintf("kernel %s, file %s, resolves", kernel, file)
				if address == "" {
					found = fmt.Sprintf("kernel %s, file %s, does not resolve", kernel, file)
				}
				return want(expected, found)
			},
		},
	}
}

// cloudInitResult is the v1 part of cloud-init's result.json and status.json.
type cloudInitResult struct {
	V1 map[string]json.RawMessage `json:"v1"`
}

func judgeCloudInit(f Facts, _ Params) Verdict {
	var result struct {
		V1 struct {
			Datasource *string  `json:"datasource"`
			Errors     []string `json:"errors"`
		} `json:"v1"`
	}
	if err := json.Unmarshal([]byte(f.text("cloud-init")), &result); err != nil {
		return unknown("cannot understand result.json: %v", err)
	}
	var status cloudInitResult
	if err := json.Unmarshal([]byte(f.text("cloud-init-stages")), &status); err != nil {
		return unknown("cannot understand status.json: %v", err)
	}
	const expected = "a data source, no errors"
	bad := slices.Clone(result.V1.Errors)
	for name, raw := range status.V1 {
		var stage struct {
			Errors []string `json:"errors"`
		}
		if json.Unmarshal(raw, &stage) == nil { // not every member is a stage
			for _, e := range stage.Errors {
				bad = append(bad, name+": "+e)
			}
		}
	}
	switch {
	case len(bad) > 0:
		return failed(expected, names(bad))
	case result.V1.Datasource == nil || *result.V1.Datasource == "":
		return failed(expected, "no data source")
	}
	return Verdict{Status: Pass, Expected: expected, Found: *result.V1.Datasource}
}

// judgeDatasources takes the last datasource_list, as cloud-init does, whether
// it stands on one line or has a line for each.
func judgeDatasources(f Facts, _ Params) Verdict {
	wanted := []string{"NoCloud", "ConfigDrive", "OpenStack"}
	var list []string
	seen := false
	for _, file := range f.files("cloud-config") {
		for _, line := range file.lines {
			key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
			switch {
			case ok && strings.TrimSpace(key) == "datasource_list":
				list, seen = nil, true
				list = append(list, strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" ,[]'\"\t", r) })...)
			case strings.HasPrefix(strings.TrimSpace(line), "- "):
				list = append(list, strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "- ")))
			}
		}
	}
	if !seen {
		return failed(names(wanted), "no datasource_list")
	}
	list = without(list, []string{"growpart", "resizefs"})
	if missing := without(wanted, list); len(missing) > 0 {
		return failed(names(wanted), "without "+names(missing))
	}
	return Verdict{Status: Pass, Expected: names(wanted), Found: names(list)}
}

func diskChecks() []Check {
	return []Check{
		{
			ID: "disk.root-grown", Severity: High, Needs: []string{"disk"}, References: []string{refCloudInit + " (growpart, resizefs)"},
			Title: "the root file system has grown to the disk, or is on the logical volume that the definition says",
			Why:   "The customer's larger disk would be of no use.",
			Judge: judgeRootGrown,
		},
		{
			ID: "disk.root-by-name", Severity: High, Needs: []string{"boot"},
			References: []string{"OTC image factory release notes: root by label"},
			Title:      "the root file system is found by label or UUID",
			Why:        "Its device is called otherwise on Xen, KVM and bare metal.",
			Judge:      judgeRootByName,
		},
	}
}

// grownPercent of the disk must be the root file system's: the rest is for a
// boot partition and what the file system keeps for itself.
const grownPercent = 85

func judgeRootGrown(f Facts, p Params) Verdict {
	if p.LVM {
		if source := f.value("disk", "source"); !isVolume(source) {
			return failed("a logical volume, as the definition says", cmpOr(source, "nothing"))
		}
		return skipped("the root file system is on a logical volume, which its owner grows")
	}
	if p.OverlayBytes <= p.DiskBytes {
		return skipped("the machine's disk is not larger than the image")
	}
	fs, err := strconv.ParseInt(f.value("disk", "filesystem-bytes"), 10, 64)
	if err != nil {
		return unknown("the size of the root file system is not shown")
	}
	disk, err := strconv.ParseInt(f.value("disk", "disk-bytes"), 10, 64)
	if err != nil || disk != p.OverlayBytes {
		return unknown("the disk has %q bytes, not the %d that the machine was given", f.value("disk", "disk-bytes"), p.OverlayBytes)
	}
	expected := fmt.Sprintf("more than the image's %d bytes and at least %d%% of the disk's %d", p.DiskBytes, grownPercent, disk)
	found := fmt.Sprintf("%d bytes", fs)
	if fs <= p.DiskBytes || fs < disk/100*grownPercent {
		return failed(expected, found)
	}
	return Verdict{Status: Pass, Expected: expected, Found: found}
}

// isVolume reports whether a device is named as a logical volume is:
// /dev/mapper/GROUP-VOLUME or /dev/GROUP/VOLUME. Such a name is found on any disk.
func isVolume(device string) bool {
	rest, ok := strings.CutPrefix(device, "/dev/")
	group, volume, two := strings.Cut(rest, "/")
	return ok && two && volume != "" && !strings.Contains(volume, "/") && !slices.Contains([]string{"", "disk", "block", "cciss"}, group)
}

func judgeRootByName(f Facts, p Params) Verdict {
	expected := "LABEL=, UUID=, PARTLABEL= or PARTUUID= on the kernel's command line and in /etc/fstab"
	if p.LVM {
		expected = "a logical volume, " + expected
	}
	byName := func(s string) bool {
		tag, value, ok := strings.Cut(s, "=")
		return p.LVM && isVolume(s) || ok && value != "" && slices.Contains([]string{"LABEL", "UUID", "PARTLABEL", "PARTUUID"}, tag) ||
			strings.HasPrefix(s, "/dev/disk/by-label/") || strings.HasPrefix(s, "/dev/disk/by-uuid/")
	}
	var root, fstab string
	for _, w := range kernelArgs(f) {
		if v, ok := strings.CutPrefix(w, "root="); ok {
			root = v
		}
	}
	for _, file := range f.files("boot") {
		if file.name != "/etc/fstab" {
			continue
		}
		for _, line := range file.lines {
			if w := strings.Fields(line); len(w) >= 2 && w[1] == "/" && !strings.HasPrefix(w[0], "#") {
				fstab = w[0]
			}
		}
	}
	found := fmt.Sprintf("kernel %s, fstab %s", cmpOr(root, "nothing"), cmpOr(fstab, "nothing"))
	// A system may leave the root out of fstab, but not name its device there.
	if !byName(root) || fstab != "" && !byName(fstab) {
		return failed(expected, found)
	}
	return Verdict{Status: Pass, Expected: expected, Found: found}
}

func identityChecks() []Check {
	return []Check{
		{
			ID: "identity.machine-id", Severity: High, Needs: []string{"identity"}, References: []string{"machine-id(5)"},
			Title: "the machine has a machine-id of 32 hexadecimal digits that are not all alike",
			Why:   "Machines that share one get the same address and are taken for one another; package boots holds two beside each other.",
			Judge: func(f Facts, _ Params) Verdict {
				const expected = "32 hexadecimal digits, not all alike"
				id := f.value("identity", "machine-id")
				if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || strings.Trim(id, id[:1]) == "" {
					return failed(expected, fmt.Sprintf("%.80q", id))
				}
				return want(expected, expected)
			},
		},
	}
}
