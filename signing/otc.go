package signing

import "time"

// OTCPins returns the keys of the original Open Telekom Cloud image factory, as
// its documentation names them: two for images and configurations, one before
// and one from 2018-06-01, and the one of its package repositories on the Open
// Build Service.
//
// These are fingerprints. The keys themselves are the caller's to supply to
// [NewKeyring]; what they signed is [NoKeyMaterial] without. The key of 2016
// expires on 2018-01-06 by its own statement, so from then to 2018-06-01 nothing
// counts, unless the copy of it that is supplied has been prolonged.
func OTCPins() []Pin {
	change := time.Date(2018, time.June, 1, 0, 0, 0, 0, time.UTC)
	return []Pin{{
		Fingerprint: "224CDD82F3E38F60D690D8910CDB8F9F03067050",
		Until:       change,
		Purposes:    []Purpose{ForImage, ForConfig},
		Comment:     "OTC Image Builder <imgfactory@otc.t-systems.com>",
	}, {
		Fingerprint: "85C8D1369BA0A10247E5F8A3B52DCBA9C4C85D49",
		From:        change,
		Purposes:    []Purpose{ForImage, ForConfig},
		Comment:     "OTC ImageBuilder (OTC ImageFactory image signing key 2018/19) <imagefactory@otc.t-systems.com>",
	}, {
		Fingerprint: "8A208CFD29C504168689A63184F7BE81CC6D4077",
		Purposes:    []Purpose{ForRepository},
		Comment:     "home:garloff:OTC OBS Project",
	}}
}
