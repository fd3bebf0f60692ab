// Package sbom writes, reads and judges the bill of materials of an image, in
// CycloneDX 1.6 JSON.
//
//	packages, err := sbom.ReadDpkg(status)       // the disk's /var/lib/dpkg/status
//	err = sbom.Write(w, &sbom.Image{Name: …, Packages: packages, …})
//	image, err := sbom.Read(r)                   // what Write wrote
//	err = sbom.Validate(r)                       // any CycloneDX 1.6, field by field
//
// The image is the component of the metadata. Its components are the installed
// packages, with the packages that each needs, and single files such as the kernel
// and the initial RAM disk. The same Image gives the same bytes: the time is the
// image's, and the serial number is made of its name, its build and its digest.
//
// # BSI TR-03183-2
//
// A Debian's licences are what its packages' debian/copyright declares, where that is in
// the machine-readable form ([ReadCopyright]); an expression is written as one, any
// other text as a name. Nobody has concluded from it what holds.
//
// The fields are those that version 2.1.0 of the guideline requires (section 5.2):
// creator and time of the list; of each component its creator with an e-mail
// address or a URL, name, version, file name, dependencies, licences, SHA-512 and
// whether it is executable, an archive, and structured. The last three and the
// file name are properties of the taxonomy "bsi:component". There are no
// vulnerabilities in it, as the guideline demands (section 3.1): they change, it
// does not.
//
// A field that nobody knows is named in the component's property
// [UnknownProperty]; [Validate] takes that word for the creator, the licence and the
// digest only. This is so of a package's digest: what is installed is no longer the
// file that was delivered, and the archive's index gives SHA-256 only. A single
// file has the SHA-256 that was read from the disk.
//
// # Limits
//
// Read and Validate take at most 64 MiB and 100,000 components, ReadDpkg 64 MiB. All
// functions may be called concurrently.
package sbom
