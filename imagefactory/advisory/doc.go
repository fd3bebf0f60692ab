// Package advisory tells which releases of an image a security advisory is about.
//
//	db, err := advisory.Load(ctx, "advisories/")       // what the caller has fetched
//	verdict := db.Judge("CVE-2026-1234", installed)    // affected, fixed, not present, …
//	open := db.Open(installed)                         // all that is open in a release
//	releases, err := advisory.ReadReleases(ctx, dir, keyring)
//
// Nothing is fetched: the advisories are files that the caller has, alone or in a
// directory, as they are published, or compressed with gzip or bzip2:
//
//   - Debian's security tracker (JSON; an object of source packages),
//   - OSV's exports for Debian and Ubuntu (JSON; an advisory a file, an array of
//     them, or a zip archive of such files), schema 1.x,
//   - OVAL 5 of SUSE, Red Hat and Oracle (XML; definitions of the classes patch and
//     vulnerability with rpminfo tests).
//
// Advisories about a Debian or an Ubuntu name source packages, so what is installed
// is judged by the source that it was made of. Versions are compared as dpkg and rpm
// compare them. OVAL names installed packages and is a condition: what cannot be known
// of an image that does not run, such as its running kernel or a definition that is
// extended, counts as met. An epoch that a list of packages leaves out is 0.
//
// # What a verdict says
//
// A verdict is about the distribution's release that the image is of. Where several
// advisories have the same ID the worst one counts. [Unknown] is no all-clear: no
// advisory that was read is about this ID and this release of a distribution. A
// package that is installed and named as open, without a fixed version, is
// [Affected].
//
// # Old advisories
//
// An old file says nothing of what was found since, and looks like an all-clear.
// [Database.Remember] keeps what was seen and refuses older files with [ErrOlder].
//
// # Limits
//
// A file may have 2 GiB when it is unpacked, and an advisory 64 MiB; there may be
// 5,000,000 affected packages, and 10,000 files in a directory. Files are read as a
// stream. A file of another format is an error, as is one that is cut off: half of
// the advisories would be an all-clear that nobody gave. A Database is not changed
// after Load and may be used concurrently.
package advisory
