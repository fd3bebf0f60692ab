// Package imagefactory runs an image factory: it takes definitions of images
// and, for each, builds the image, inspects the qcow2, boots and tests it,
// seals everything into a signed release directory and publishes that.
//
//	Definition ─build→ builder.Result ─inspect→ qcow2.Info ─boot+test→ testsuite.Report
//	           ─seal→ release directory ─publish→ publish.Publication
//
// A [Factory] does that for several images at once; one image's failure never
// stops another's. [LoadFile] reads definitions from YAML as they are written,
// [MarshalDefinitions] writes them, and [Factory.Check] says what is wrong with
// them and what they refer to.
//
// # Catalog
//
// The [Catalog] has the facts of the cloud's public images. A definition
// inherits from one of them with `from: Standard_Debian_9` and overrides what
// differs; a definition's capabilities become the flags of the registered
// image, and a claim that the booted image does not bear out fails the run. What
// the first boot installs (InfiniBand, NVIDIA) is believed of an image that can
// boot there. Images that Huawei provides have no names on record and no
// entries; those of Windows are neither built nor tested.
//
// # What the catalog records
//
// What a build must have is held against it before a boot: required and forbidden
// packages with versions ([PackageRelation]), by the builder's list, or where it has
// none by the booted machine, which is asked in any case; ixgbevf's version and packaging
// are such packages; and lvm by what is on the disk. extra_reboot starts the machine once
// more before it is judged, and byol registers no repositories. Upstream is for
// [CatalogEntry.Sources]: no definition fills in its builder's mirrors from it. On which
// host SLES 11 is built stands in a note, and nobody looks at the host's release.
//
// # Directories
//
// Below Factory.Dir:
//
//	imagefactory.pub        the public keys that releases verify with
//	imagefactory.keys.yaml  their spans, from the first change of the key on: see [RotateKey]
//	NAME/BUILD/             releases, with NAME/latest and NAME/prev (publish/directory)
//	.work/NAME/BUILD/       logs, test report and console of a run that failed
//	.work/NAME/BUILD/out/   what a builder wrote and nobody took over
//	.work/NAME/build/       what the builder works in
//	.work/.journal/NAME/    what is recorded of each run, BUILD.json
//	.work/.release/NAME/    releases that are sealed and not yet published everywhere
//	.work/.candidate/NAME/  the newest release that is not public yet
//	.work/.nights/          what is remembered of each image from night to night
//	.work/.cache/           what tests of any image need again: see Factory.Reader
//
// A failed run keeps its files until the next one of the same image begins: then
// images, sandboxes and what the builder wrote go, and of the rest the ten newest
// runs stay, and thirty journals. A run that is published leaves its journal in
// .work and nothing else. Releases are removed by [Factory.Retire] alone.
//
// An image is compared with its latest release here or, where there is none, with that of
// the first of its targets that is a [publish.Source] and has one.
//
// # Files
//
// Before an image is booted its disk is read, where its packages are Debian's and
// its builder is a [builder.Declarer]: every file has to be a package's, declared,
// or explained by a rule (package ledger; checks files.*). Elsewhere these checks
// are skipped. The release has the list as NAME-BUILD.files.gz, and what differs from
// the previous release's list at the end of its .changes.
//
// NAME-BUILD.facts.json.gz is what was seen of the booted image, for
// testsuite.LoadFacts: checks that are written later can judge it.
//
// # Policy
//
// A definition's [Gate] says which findings of the inspection, the tests, the versions of
// packages and the signing keep an image from being released, and its [Renewal] when a
// release becomes public: each night or about once a month, and at once for a security
// update, as [Factory.Due] tells. Until then a release is a candidate, on the
// definition's staging targets and for [Factory.Promote]. A latest that goes unrenewed
// for too long, because nights fail or nobody decides, is an alarm in the report.
// [Factory.Updates] is who knows of security updates; without it a gate that asks for
// them lets nothing pass. It is asked for what is installed in the latest release and in
// the new one, and when it first told of an update is remembered: the gate counts its
// days from then.
//
// A release is held to the gate before it is public on a target; what is public on one
// comes to the others as it is. Waivers of checks are in the definition's test, those of
// other findings in its gate. An image that would be unchanged is tested anew when a
// waiver has expired since the latest release was built, or when its profile has a check
// that this was not held to, and a candidate that is promoted is held to the waivers and
// the gate of that day.
//
// Two things tell that latest is old. Renewal.AlarmDays is of one image and of the
// nights: none has released it or found it unchanged for so long. Factory.MaxAge is of
// all images and of what the targets have, whoever put it there: it is older than that,
// also if it is unchanged.
//
// # Supply chain
//
// NAME-BUILD.cdx.json is the bill of materials (package sbom). Of a Debian whose disk
// was read it says of each package its source, its maintainer and what it needs, and
// names the kernels and initial RAM disks with their digests; of others what the
// builder lists. NAME-BUILD.sources has the packages with their sources in lines, for
// package advisory, which tells the releases that an advisory is about. Licences are
// those that a Debian's packages declare; where they are not known the list says so.
// NAME-BUILD.vex.json, where the gate's waivers accept advisories, says which (package
// vex).
//
// NAME-BUILD.provenance.json is SLSA provenance v1, and says of which level of the build
// track it is: 2, or 3 where the image was built on another machine than the factory's
// and Signer's key is outside this process (signing.NewAgentSigner), so that what runs in
// a build reaches neither the key nor the statement. Its materials are the configuration
// and each file in it, among them the elements and the keys of the packages, the list of
// packages, the mirrors with the signed indexes that they had, and the packages of the
// build machine, NAME-BUILD.buildhost.
//
// # Nothing to build
//
// Where a builder can tell (builder.Stater), the signed indexes of the mirrors are
// read and verified before a build. If the definition, what it refers to, the tool and
// the indexes are those of the latest release, whose configuration has them in
// mirrors.json, the image is unchanged and nothing is built, until that release is older
// than RebuildAfter. What else a build reads from a network, such as an element that
// fetches files, is not known. A mirror whose index has expired or is signed by a
// foreign key, that is in the middle of an update or has gone back in time, fails the
// image by that name.
//
// # Failures and interruption
//
// Nothing is published from an image that did not pass all stages. A run that
// is cut, by a signal or a crash, is taken up by the next run of the same
// definition within twelve hours: what its finished stages wrote is used if it
// is as they recorded it, and at most the stage that was cut is done again. A
// release that was sealed is published however old it is. Two runs never
// work on one image at a time: the second fails with [ErrBusy]. A target that
// fails keeps the release from no other target, and fails the image; the next
// run publishes where it is missing.
//
// # Tasks
//
// Each [Stage] reads what is recorded of the earlier ones and records what it leaves,
// so a [Task], one stage of one image's run, can be done by any process:
// [Factory.Tasks] plans them, a queue or another scheduler carries them as JSON, and
// [Factory.Do] does one; [Factory.Run] is both. The record is the run's journal: of
// each stage when it began and ended, the digests of what it read and wrote, and the
// result. It is replaced in one step and durable before the next stage begins. What is
// read from it is bounded, and one that is damaged or of another version is passed
// over: that run is begun anew. A stage is done again when what it would read now is
// not what it read, and after Do was killed in it. Builds of one image do not overlap:
// of two plans made at once the one that is begun first counts.
//
// The journals and the files of a run lie in Dir. Processes that share the work share
// Dir, on a file system with flock(2); there is no other store for them yet.
//
// When the context ends, the stage in hand is cut, nothing new is begun, and the
// report is complete: each error tells what was cut and the context's cause.
//
// # Embedding
//
// Builders, targets, the sandbox, profiles, the clock and the progress callback
// are the caller's values; the package registers nothing and keeps no state of
// its own but the files in Dir. What they return is validated, and a panic in
// one is a [PanicError] of the image that it was called for, while the others go
// on. Two things no program can contain: a panic in a goroutine that a driver has
// started itself, and a driver that never returns. Tests of a program that embeds
// the factory take testsuite/sandboxtest for the sandbox: see the example of
// [Factory].
//
// # Security
//
// An image is booted only when its header is safe (qcow2.PublicPolicy), and
// sealed only if it is byte for byte the file that was inspected and tested. A
// release is published only after its signatures were verified again.
package imagefactory
