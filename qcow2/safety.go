package qcow2

import (
	"fmt"
	"slices"
)

// The names of what Inspect may find. They are part of the interface: other
// programs match on them.
const (
	FindBackingFile     = "backing_file"       // reads another file of the host
	FindDataFile        = "data_file"          // keeps its guest data in another file
	FindUnknownFeatures = "unknown_features"   // feature bits or values nobody knows
	FindEncryption      = "encryption"         // cannot be examined without the key
	FindCorrupt         = "corrupt"            // the corrupt bit is set
	FindDirty           = "dirty"              // the dirty bit is set
	FindSnapshots       = "snapshots"          // older states of the disk are inside
	FindTableOutside    = "table_outside_file" // a table reaches beyond the file
	FindInvalidValue    = "invalid_value"      // a value outside the specification's range
	FindSizeOverflow    = "size_overflow"      // a size or an offset overflows
	FindTrailingData    = "trailing_data"      // bytes behind the last used cluster
	FindMinDisk         = "min_disk"           // the virtual size exceeds the policy's
	FindContentFormat   = "content_format"     // the guest's disk begins as an image: see Image.Safety
	FindNotInspected    = "not_inspected"      // not from Inspect, or a read failed; no policy allows it
)

// A Finding is one reason to distrust an image.
type Finding struct {
	Name   string `json:"name"`   // one of the Find constants
	Text   string `json:"text"`   // for people
	Offset int64  `json:"offset"` // in the file, where the reason stands
}

// String gives "NAME: text".
func (f Finding) String() string { return f.Name + ": " + f.Text }

// A Policy says which findings an image may have. The zero Policy is the
// public one: none.
type Policy struct {
	// Name is for reports. If empty it is "public".
	Name string
	// Allow lists the names of findings that do not make an image unsafe.
	Allow []string
	// MinDiskBytes is the size of the smallest disk that the image will be
	// written to: a larger virtual size is the finding "min_disk". If 0
	// nothing is compared.
	MinDiskBytes int64
}

// PublicPolicy is what an image must fulfil that everybody may start: no
// finding at all.
func PublicPolicy() Policy { return Policy{Name: "public"} }

// PrivatePolicy is for an image that only its owner starts. It tolerates
// what can harm only the owner: encryption, internal snapshots, a set dirty
// bit and trailing data. It refuses what can harm the host.
func PrivatePolicy() Policy {
	return Policy{Name: "private", Allow: []string{FindEncryption, FindSnapshots, FindDirty, FindTrailingData}}
}

// Safety is the verdict on one image under one policy.
type Safety struct {
	Policy   string    `json:"policy"`
	Safe     bool      `json:"safe"`
	Findings []Finding `json:"findings"` // those that the policy does not allow; never nil
}

// Safety judges the image under a policy. It reads nothing: everything was
// found by Inspect, in the order of the file's fields.
//
// A safe image opens no file of the host, claims no more than it holds and
// hides nothing from who reads its guest data. Safety says nothing about the
// tables' content, for which see [Check], nor about the guest; how its disk
// begins judges [Image.Safety]. An Info that is not from Inspect, or from one
// that could not read to the end, is not safe.
func (i *Info) Safety(p Policy) Safety {
	if i == nil {
		i = new(Info)
	}
	s := i.judge(p, i.findings)
	if !i.inspected {
		s.Safe = false
		s.Findings = append(s.Findings, Finding{FindNotInspected, "nothing was inspected, or not to its end", 0})
	}
	return s
}

// judge applies a policy to findings.
func (i *Info) judge(p Policy, findings []Finding) Safety {
	s := Safety{Policy: p.Name, Findings: []Finding{}}
	if s.Policy == "" {
		s.Policy = "public"
	}
	for _, f := range findings {
		if !slices.Contains(p.Allow, f.Name) {
			s.Findings = append(s.Findings, f)
		}
	}
	if p.MinDiskBytes > 0 && i.VirtualSize > p.MinDiskBytes && !slices.Contains(p.Allow, FindMinDisk) {
		s.Findings = append(s.Findings, Finding{FindMinDisk,
			fmt.Sprintf("the virtual size of %d bytes exceeds the disk of %d bytes", i.VirtualSize, p.MinDiskBytes), 24})
	}
	s.Safe = len(s.Findings) == 0
	return s
}
