package testsuite

import (
	"fmt"
	"slices"
	"strings"
)

func agentChecks() []Check {
	const ref = "OTC image factory introduction: uvp-monitor and other drivers"
	return []Check{
		{
			ID: "uvp.monitor", Severity: Medium, Needs: []string{"agents"}, References: []string{ref},
			Title: "uvp-monitor is as the definition wants it",
			Why:   "The platform's monitoring, hot-add and live migration of Xen machines use it.",
			Judge: judgeUVP,
		},
		{
			ID: "drivers.packaged", Severity: Medium, Needs: []string{"agents"}, References: []string{ref},
			Title: "agents and drivers beside the kernel's own are whole packages",
			Why:   "What is in no package gets no update, and a driver without one does not survive a new kernel.",
			Judge: judgePackaged,
		},
	}
}

// agents is the fact of that name, by the first word of its lines.
func (f Facts) agents() map[string][][]string {
	out := map[string][][]string{}
	for _, l := range f.lines("agents") {
		out[l[0]] = append(out[l[0]], l[1:])
	}
	return out
}

// judgeUVP holds an agent that is there to what makes it work, also one that is
// optional. It speaks to the hypervisor by Xen's bus: elsewhere nothing is there to
// speak with, so that it need not run on KVM, but start at boot it must, since the same
// image boots on Xen.
func judgeUVP(f Facts, p Params) Verdict {
	a := f.agents()
	reason := cmpOr(p.UVPMonitor.Reason, "the definition gives no reason")
	there, faults := uvpFaults(a)
	found := "not installed"
	if there {
		found = fmt.Sprintf("installed, %d processes", len(a["process"]))
		if len(faults) > 0 {
			found += ": " + shown(faults)
		}
	}
	const expected = "installed, enabled at boot, its package's program, and on Xen running with its bus"
	switch p.UVPMonitor.State {
	case UVPForbidden:
		return want("not installed", found)
	case UVPOptional:
		if !there {
			return Verdict{Status: Skipped, Reason: "optional: " + reason, Found: found}
		}
	case UVPRequired, "":
		if !there {
			return failed(expected, found)
		}
	default:
		return unknown("the definition's uvp-monitor state %q is none of required, optional, forbidden", p.UVPMonitor.State)
	}
	if len(faults) > 0 {
		return failed(expected, found)
	}
	return Verdict{Status: Pass, Expected: expected, Found: found}
}

const uvpName = "uvp-monitor"

// uvpFaults says whether something of the agent is there, and what is wrong with it.
func uvpFaults(a map[string][][]string) (there bool, faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	state, kmod := "", false
	for _, l := range a["package"] {
		switch {
		case len(l) < 2:
		case l[1] == uvpName:
			state = l[0]
		case l[1] == "kmod-uvpmod":
			kmod = true
		}
	}
	if state != "" && state != "ii" {
		fault("its package is %s", packageStatus(state))
	}
	unit := map[string]string{}
	for _, l := range a["unit"] {
		unit[l[0]] = strings.Join(l[1:], " ")
	}
	program, script := false, false
	for _, l := range a["file"] {
		program, script = program || strings.HasSuffix(l[0], "bin/uvp-monitor"), script || strings.HasPrefix(l[0], "/etc/init.d/")
		if len(l) < 2 || l[1] != uvpName {
			fault("%s is not its package's", l[0])
		}
	}
	there = state != "" || len(a["file"]) > 0 || len(a["process"]) > 0 || kmod || unit["LoadState"] == "loaded"
	if state == "" {
		fault("no package %s", uvpName)
	}
	if !program {
		fault("no /usr/bin/uvp-monitor")
	}
	loaded := unit["LoadState"] == "loaded"
	switch {
	case unit["LoadState"] == "masked":
		fault("its unit is masked")
	case !loaded && !script:
		fault("neither a unit nor a script of init")
	case unit["UnitFileState"] != "enabled" && len(a["starts"]) == 0:
		fault("does not start at boot")
	}
	if unit["ActiveState"] == "failed" {
		fault("its unit has failed")
	}
	for _, l := range a["process"] {
		if len(l) != 3 || l[1] != uvpName {
			fault("process %s is not its package's", strings.Join(l, " "))
		}
	}
	return there, append(faults, xenFaults(a, kmod)...)
}

// xenFaults are those that show on Xen alone, and the module that two systems need
// for the bus.
func xenFaults(a map[string][][]string, kmod bool) []string {
	var faults []string
	for _, l := range a["release"] {
		name := strings.Join(l, " ")
		six := strings.Contains(name, "release 6")
		if six && (strings.Contains(name, "CentOS") || strings.Contains(name, "Oracle")) && !kmod {
			faults = append(faults, "no package kmod-uvpmod")
			break
		}
	}
	xen := slices.ContainsFunc(a["hypervisor"], func(l []string) bool { return slices.Contains(l, "xen") })
	if !xen {
		return faults
	}
	if len(a["xenbus"]) == 0 {
		faults = append(faults, "neither /dev/xen/xenbus nor /proc/xen/xenbus")
	}
	// It watches itself: a parent and a child.
	if n := len(a["process"]); n < 2 {
		faults = append(faults, fmt.Sprintf("%d processes of 2", n))
	}
	return faults
}

func judgePackaged(f Facts, _ Params) Verdict {
	a := f.agents()
	var bad, good []string
	for _, l := range a["package"] {
		switch {
		case len(l) < 3:
		case l[0] != "ii":
			bad = append(bad, l[1]+" is "+packageStatus(l[0]))
		default:
			good = append(good, l[1]+" "+l[2])
		}
	}
	for _, l := range a["ixgbevf"] {
		if len(l) == 3 && l[1] == "-" {
			bad = append(bad, l[2]+" is in no package")
		}
	}
	if len(bad) > 0 {
		return failed("all in packages, all installed", shown(bad))
	}
	return Verdict{Status: Pass, Expected: "all in packages, all installed", Found: cmpOr(names(good), "none beside the kernel's own")}
}
