// Package goimagefactory is the documentation of an SDK for building cloud
// images the way the Open Telekom Cloud's image factory does.
//
// Data flows one way, one package and one value per step:
//
//		definition ─build→ image and packages ─inspect→ qcow2 facts ─boot and test→ report
//		           ─seal→ signed release directory ─publish→ download directory or cloud
//
//	  - imagefactory: definitions, the pipeline over all of the below, nightly runs
//	  - builder: runs disk-image-create and other real image builders
//	  - qcow2: what is in a qcow2 file and whether it can be trusted
//	  - testsuite: boots an image in a sandbox and judges its hardening
//	  - signing: OpenPGP signatures and checksum files
//	  - publish: releases and their rotation as latest, prev and dated
//	  - capabilities: what an image can do and which flavors it runs on
//
// Every package works alone; imagefactory imports the others and none of them
// imports it. The programs under examples/ are thin.
package goimagefactory
