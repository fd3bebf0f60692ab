package imagefactory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// diskSuffix is a file of the run: what the image's disk holds. It is not released.
const diskSuffix = ".disk.json"

// runInspect looks at an image that is another than the latest release. What it has
// installed is judged in any case: the definition may demand more by now.
func (j *job) runInspect(ctx context.Context, r *record) error {
	j.report.Findings = nil
	err := j.judgeBuilt()
	r.Findings = j.report.Findings
	if err != nil {
		return err
	}
	if unchanged, err := j.unchanged(ctx, r); unchanged || err != nil {
		if err == nil {
			r.Result = resultUnchanged
		}
		return err
	}
	disk, err := j.inspect(ctx)
	r.Findings = j.report.Findings
	if err != nil {
		return err
	}
	image, err := digestFile(ctx, j.file(".qcow2"))
	if err != nil {
		return err
	}
	if image.SHA256 != j.journal.output(StageBuild, ".qcow2") {
		return errors.New("the image changed while it was inspected")
	}
	err = writeFile(j.file(diskSuffix), func(w io.Writer) error { return json.NewEncoder(w).Encode(disk) })
	return errors.Join(err, j.wrote(ctx, r, diskSuffix))
}

// disk is what the inspection found.
func (j *job) disk() (*guestdisk.Disk, error) {
	data, err := os.ReadFile(j.file(diskSuffix))
	if err != nil {
		return nil, err
	}
	var d guestdisk.Disk
	if err := strictJSON(data, &d); err != nil {
		return nil, fmt.Errorf("cannot read what the inspection found: %w", err)
	}
	return &d, nil
}

// inspect holds the image to what a public image must be and to the definition.
func (j *job) inspect(ctx context.Context) (*guestdisk.Disk, error) {
	f, err := os.Open(j.file(".qcow2"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	info, err := qcow2.Inspect(f, st.Size())
	if err != nil {
		return nil, fmt.Errorf("cannot inspect the image: %w", err)
	}
	policy := qcow2.PublicPolicy()
	policy.MinDiskBytes = int64(j.def.MinDiskBytes)
	var errs []error
	for _, finding := range info.Safety(policy).Findings {
		errs = append(errs, fmt.Errorf("unsafe image: %s: %s", finding.Name, finding.Text))
	}
	var findings []Finding
	found := func(name string, s testsuite.Severity, format string, args ...any) {
		findings = append(findings, Finding{ID: areaInspection + "." + name, Severity: s, Text: fmt.Sprintf(format, args...)})
	}
	if info.VirtualSize != int64(j.def.DiskBytes) {
		found("size", testsuite.High, "the disk has %v, the definition says %v", Size(info.VirtualSize), j.def.DiskBytes)
	}
	check, err := qcow2.Check(ctx, f, st.Size())
	if err != nil {
		return nil, errors.Join(append(errs, fmt.Errorf("cannot check the image: %w", err))...)
	}
	if check.Corruptions > 0 {
		errs = append(errs, fmt.Errorf("the image has %d corruptions", check.Corruptions))
	}
	if check.Leaks > 0 {
		found("leaks", testsuite.Low, "the image has %d clusters that nothing uses", check.Leaks)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if cross := j.factory.CrossCheck; cross != nil {
		err := contain(j.log, "CrossCheck", "", func() error { return cross(ctx, f, st.Size()) })
		if err != nil {
			return nil, err
		}
	}
	disk, err := inspectDisk(f, st.Size(), policy)
	if err != nil {
		return nil, fmt.Errorf("cannot inspect the image's disk: %w", err)
	}
	if j.def.LVM && !hasVolumes(disk) {
		found("lvm", testsuite.High, "no volume group on the disk has a volume for a file system, the definition says lvm")
	}
	for _, problem := range disk.Problems {
		found("disk", testsuite.Medium, "the image's disk: %s", problem)
	}
	return disk, j.pass(findings)
}

// hasVolumes reports whether a volume group on the disk has a volume that may be the
// root file system: that has one, or whose place is not simple enough to look there.
func hasVolumes(d *guestdisk.Disk) bool {
	contents := []*guestdisk.Content{d.Content}
	for _, p := range d.Partitions {
		contents = append(contents, p.Content)
	}
	return slices.ContainsFunc(contents, func(c *guestdisk.Content) bool {
		return c != nil && c.Type == "LVM2_member" && slices.ContainsFunc(c.Volumes, func(v guestdisk.Volume) bool {
			return v.Content == nil || slices.Contains([]string{"ext2", "ext3", "ext4", "xfs", "btrfs"}, v.Content.Type)
		})
	})
}

// inspectDisk tells what the guest's disk holds. It must not begin as an image:
// written as a raw file it would be one.
func inspectDisk(r io.ReaderAt, size int64, policy qcow2.Policy) (*guestdisk.Disk, error) {
	image, err := qcow2.Open(r, size, qcow2.OpenOptions{})
	if err != nil {
		return nil, err
	}
	defer image.Close()
	safety, err := image.Safety(policy)
	if err != nil {
		return nil, err
	}
	for _, finding := range safety.Findings {
		return nil, fmt.Errorf("unsafe image: %s: %s", finding.Name, finding.Text)
	}
	return guestdisk.Inspect(image, image.Size())
}
