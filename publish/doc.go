// Package publish publishes releases of images and rotates them: the newest is
// latest, the one before it prev, and older ones stay under their date.
//
// A release is a signed directory. [Open] verifies it, [Publish] brings it to a
// [Target] and makes it latest, and [Retire] removes releases whose time is
// over. Targets are in packages of their own, such as publish/directory.
//
// # Rotation
//
// The policy is that of the Open Telekom Cloud of 2018-04-01: there is one
// latest and one prev of each image; what was prev before keeps its date and
// can be referred to by who knows it, for at least two years.
//
// Rotation is planned, not scripted. [Plan] compares what a target has with
// what it should have and returns the steps from one to the other. After each
// of them there is exactly one latest, if there was one before. What a target has
// is what it lists, whoever made it so: whatever a run left when it was cut, and
// whatever else was done to it, the next one plans from there. Only two things are
// recorded beside the releases: which were taken back, by [Rollback] or
// [Withdraw], so that they do not become latest again by themselves, and when one
// lost its last label, from which its two years count.
//
// # The release directory
//
// A release lies in a directory IMAGE/BUILD, such as
// Standard_Debian_12/20261122-031507. SHA256SUMS lists its files, and
// SHA256SUMS.asc is the signature of that. release.json says in the form of
// [Index] what the release is:
//
//	{
//	  "image": "Standard_Debian_12",
//	  "build": "20261122-031507",
//	  "definition_sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
//	  "capabilities": "0x3",
//	  "properties": {
//	    "__support_kvm": "true"
//	  },
//	  "min_disk_gib": 4,
//	  "tests": {
//	    "pass": 41,
//	    "fail": 0,
//	    "error": 0,
//	    "waived": 1,
//	    "skipped": 2
//	  },
//	  "files": [
//	    {
//	      "name": "Standard_Debian_12-20261122-031507.qcow2",
//	      "size_bytes": 361758720,
//	      "sha256": "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9"
//	    }
//	  ]
//	}
//
// # Security
//
// [Open] uses nothing of a directory before its signature is verified against
// the caller's keys. It refuses a release that is signed but is not the one
// that its directory's name says: an old release in the place of a new one, or
// another image's. Files are compared with the signed digests once more when
// they are read to be published.
//
// A target can still be set back as a whole by who can write to it: a
// signature does not say what is newest.
//
// # Limits
//
// A label moves at once where the target can do that, as a directory can. In a
// cloud, where labels are names of images and a call renames one of them, users
// may for a moment see two images of a name; what a target does about it is in
// its documentation.
package publish
