package glance

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	lastN   = regexp.MustCompile(`^last-[1-9][0-9]*$`)
	integer = regexp.MustCompile(`^[0-9]+$`)
)

// checkSCS0102 reports all that SCS-0102 v1 (SCS Image Metadata, stable since
// 2022-10-31) makes mandatory and the image lacks, and values that it does not know.
func checkSCS0102(p map[string]string, minDiskGiB, minRAMMiB int) error {
	var errs []error
	check := func(name, want string, ok func(string) bool) {
		switch value, there := p[name]; {
		case !there || value == "":
			errs = append(errs, fmt.Errorf("%s is missing; want %s", name, want))
		case !ok(value):
			errs = append(errs, fmt.Errorf("%s is %.60q; want %s", name, value, want))
		}
	}
	anything := func(string) bool { return true }
	one := func(of ...string) func(string) bool {
		return func(s string) bool { return slices.Contains(of, s) }
	}
	date := func(layouts ...string) func(string) bool {
		return func(s string) bool {
			return slices.ContainsFunc(layouts, func(l string) bool { _, err := time.Parse(l, s); return err == nil })
		}
	}
	check("architecture", "the name of one, such as x86_64", anything)
	check("os_distro", "the distribution's name in lower case", func(s string) bool { return s == strings.ToLower(s) })
	check("os_version", "the distribution's version", anything)
	check("hw_disk_bus", "scsi, virtio or another bus", anything)
	check("replace_frequency", "yearly, quarterly, monthly, weekly, daily, critical_bug or never",
		one("yearly", "quarterly", "monthly", "weekly", "daily", "critical_bug", "never"))
	check("provided_until", "YYYY-MM-DD, none or notice", func(s string) bool {
		return one("none", "notice")(s) || date(time.DateOnly)(s)
	})
	check("uuid_validity", "YYYY-MM-DD, none, last-N, notice or forever", func(s string) bool {
		return one("none", "notice", "forever")(s) || lastN.MatchString(s) || date(time.DateOnly)(s)
	})
	check("image_source", "a URL, or private", func(s string) bool {
		return s == "private" || strings.Contains(s, "://")
	})
	check("image_description", "a URL or text", anything)
	check("image_build_date", "YYYY-MM-DD or YYYY-MM-DD hh:mm[:ss], UTC", date(time.DateOnly, "2006-01-02 15:04", time.DateTime))
	check("image_original_user", "a user's name, or none", anything)
	if _, there := p["hotfix_hours"]; there {
		check("hotfix_hours", "a number of hours", integer.MatchString)
	}
	if p["license_included"] == "true" && p["license_required"] == "true" {
		errs = append(errs, errors.New("license_included and license_required exclude each other"))
	}
	if minDiskGiB < 1 {
		errs = append(errs, errors.New("min_disk is missing"))
	}
	if minRAMMiB < 1 {
		errs = append(errs, errors.New("min_ram is missing; set min_ram_mib"))
	}
	return errors.Join(errs...)
}
