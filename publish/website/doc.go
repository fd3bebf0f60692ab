// Package website writes static pages and feeds of the releases in a download
// directory: a table of images and flavors, a page for each image and each
// release, a night's page, and what programs read.
//
// Below the output directory:
//
//	index.html, site.css, site.js    the table; every page works without JavaScript
//	night.html                       what came of the last run, where there is a report
//	images/NAME/index.html           an image, with its latest release
//	images/NAME/BUILD.html           a release
//	images/NAME/index.json           the image's releases: see Feeds
//	images/NAME/atom.xml, atom.xml   news of one image, and of all
//	download/NAME/BUILD/             a release's files, and SHA256SUMS.gpg
//	latest/NAME                      a link to the download directory of what is latest
//	index.json                       the images: see Feeds
//	streams/v1/                      simplestreams
//	imagefactory.pub                 the keys that the releases were verified with
//	robots.txt, sitemap.xml          the latter where [Site.URL] is set
//	.website/                        what the next run needs, not for readers
//
// The files below download/ are hard links where the file system can do that, and
// copies elsewhere, so that the directory can be served or copied by itself.
//
// # Feeds
//
// index.json has the version 1 of this schema; a reader refuses another version
// and passes over keys that it does not know. Paths are relative to the output
// directory, sizes in bytes, times in RFC 3339.
//
//	{"schema": 1,
//	 "images": [{"name": "Standard_Debian_12", "latest": "20261122-031507", "details": "images/Standard_Debian_12/index.json",
//	   "releases": [{"build": "20261122-031507", "built": "2026-11-22T03:15:07Z", "state": "active", "labels": ["latest"],
//	     "replaced_by": "", "withdrawn": "", "label_lost": null, "page": "images/…"}]}]}
//
// The details of an image are its releases, each with two keys more:
//
//	{"schema": 1, "name": "Standard_Debian_12",
//	 "releases": [{"build": "20261122-031507", …, "min_disk_gib": 4, "files": [{"path": "download/…", "size_bytes": 1, "sha256": "…"}]}]}
//
// A state is active (latest or prev), deprecated (has no label), withdrawn (taken
// back, for the reason in withdrawn), unverified (it cannot be trusted: it has no
// files here) or deleted (it was here at an earlier run).
// replaced_by is the build that is latest, where that is another one, and label_lost
// the time since which the release is deprecated, where that is known.
//
// streams/v1/index.json and the files that it names are simplestreams
// (format index:1.0 and products:1.0, one file of products for each image). They
// have the releases that are not withdrawn up to the latest one, so that the
// greatest version is the latest; the image is an item of ftype disk1.img. With a
// [Site.Signer] each has a copy with a cleartext signature, .sjson.
//
// systemd's importctl and systemd-pull find SHA256SUMS and SHA256SUMS.gpg beside
// each image below download/ and latest/.
//
// # Security
//
// Nothing of a release is shown before its signature and all its files are
// verified. One that does not verify is listed by the name of its directory alone,
// without a link, and [Site.Write] returns an error, after it has written the
// pages. Text from releases, definitions and reports is escaped and cut; characters
// that are not printed, or turn the direction of text, are shown by their number.
// The pages forbid scripts and sources other than the site's own.
//
// A run verifies a release whole, its signature and every byte of its files, if it is
// new, if a file's size, mode, times or inode is not what it was when it was verified
// (the time of an inode's last change is none that its owner can set), if its label or
// state changed, if the program or the keyring is another one, or if something of it
// is missing in the output. Else what an earlier run made of it stays, and not a byte
// of it is read. Releases that do not verify are tried again in each run. A
// release's files are linked before they are verified and shown only if they are the
// ones that were, unchanged meanwhile.
//
// Who can write to .website can deceive a run, as can who changes files beneath the
// file system. Remove .website to verify everything. A file that somebody changes
// after a run is changed below download/ too, where it is a link, until the next
// run finds it; so readers verify what they took.
//
// # How it is written
//
// All pages are written to .website/next, which nobody else may read. When all are made
// they are renamed into place: what is new first, to which no page leads yet, then what
// replaces another, then index.html. What no page leads to any more is removed at the
// end. So a reader finds no file half-written and no dead link at any moment, also if
// the run is killed; the next run completes it. Runs for one directory wait for each
// other.
//
// The same input gives the same bytes, apart from signatures, which are made anew only
// where the text changed.
//
// Some images are made at once, one for each processor. Memory does not grow with
// the number of releases, but for what a page of them needs of each release of those images
// (some kilobytes); of the other images a row of the table is kept.
package website
